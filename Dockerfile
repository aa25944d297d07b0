# ffhqref with all its extras, at the versions that are tested together.
#
#   docker build -t ffhqref .                                            CPU
#   docker build -t ffhqref --build-arg TORCH_BACKEND=cu128 .            CUDA; run it with --gpus all
#   docker run --rm -v "$PWD:/work" -u "$(id -u):$(id -g)" ffhqref run   writes ./workspace
FROM python:3.11-slim
ARG TORCH_BACKEND=cpu
ENV HOME=/tmp MPLCONFIGDIR=/tmp PYTHONUNBUFFERED=1 ORT_DISABLE_TELEMETRY=1
COPY . /opt/ffhqref
RUN pip install --no-cache-dir "uv>=0.8" \
 && cd /opt/ffhqref \
 && uv pip install --system --no-cache --compile-bytecode --constraint constraints.txt --override overrides.txt \
      --torch-backend "$TORCH_BACKEND" ".[all]"
WORKDIR /work
ENTRYPOINT ["ffhqref"]
