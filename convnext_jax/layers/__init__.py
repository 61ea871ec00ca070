"""The layers that the networks are made of: float32 parameters, arithmetic in the dtype of the input, NHWC."""
