"""Operations whose speed depends on the backend, each with its own gradient."""
