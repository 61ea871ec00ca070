# For a CPU, and with the target "cuda" for NVIDIA:
#   docker build -t convnext-jax .
#   docker build -t convnext-jax:cuda --target cuda .
#   docker run --rm --gpus all -v "$PWD:/work" --user "$(id -u)" convnext-jax:cuda train --config digits
# Versions and hashes are those of constraints/.
FROM python:3.12-slim-bookworm AS base
# Of a user without a home, such as --user 1234, matplotlib and the compiled programs are kept in /tmp.
ENV HOME=/tmp PYTHONUNBUFFERED=1
WORKDIR /src
COPY requirements.txt ./
COPY constraints ./constraints
RUN pip install --no-cache-dir "pip==26.1" \
    && pip install --no-cache-dir --requirement requirements.txt --constraint constraints/python3.12.txt
RUN useradd --uid 1000 --no-create-home trainer && install --directory --owner trainer --group trainer /work

FROM base AS wheel
COPY pyproject.toml README.md LICENSE ./
COPY convnext_jax ./convnext_jax
COPY configs ./configs
COPY sweeps ./sweeps
RUN pip wheel --no-cache-dir --no-deps --build-constraint constraints/python3.12.txt --wheel-dir /wheels .

FROM base AS cuda
RUN pip install --no-cache-dir "jax[cuda13]" --constraint constraints/python3.12.txt \
    --constraint constraints/python3.12-cuda13.txt
RUN --mount=type=bind,from=wheel,source=/wheels,target=/wheels \
    pip install --no-cache-dir --no-deps /wheels/*.whl
USER 1000
WORKDIR /work
ENTRYPOINT ["convnext-jax"]
CMD ["--help"]

FROM base AS cpu
RUN --mount=type=bind,from=wheel,source=/wheels,target=/wheels \
    pip install --no-cache-dir --no-deps /wheels/*.whl
USER 1000
WORKDIR /work
ENTRYPOINT ["convnext-jax"]
CMD ["--help"]
