# Training, retraining, ingest and backtests, on CPUs, as an unprivileged user.
#   docker build -f docker/training.Dockerfile -t tidecast-training .
# For GPUs: --build-arg TORCH_INDEX=https://download.pytorch.org/whl/cu129
FROM python:3.11-slim-bookworm AS build
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
WORKDIR /src
COPY . .
RUN python -m venv /opt/tidecast && \
    /opt/tidecast/bin/python -m pip install --no-cache-dir --disable-pip-version-check --extra-index-url "$TORCH_INDEX" \
      -c requirements.lock '.[train,compare]'

FROM python:3.11-slim-bookworm
RUN useradd --uid 10001 --create-home --home-dir /var/lib/tidecast tidecast
COPY --from=build /opt/tidecast /opt/tidecast
ENV PATH=/opt/tidecast/bin:$PATH \
    PYTHONUNBUFFERED=1
USER 10001:10001
WORKDIR /var/lib/tidecast
ENTRYPOINT ["tidecast"]
CMD ["--help"]
