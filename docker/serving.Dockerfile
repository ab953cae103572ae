# Serving and the page: onnxruntime, a Kafka client and a web server, neither torch nor polars, as an unprivileged user.
#   docker build -f docker/serving.Dockerfile -t tidecast-serving .
FROM python:3.11-slim-bookworm AS build
WORKDIR /src
COPY . .
RUN python -m venv /opt/tidecast && \
    /opt/tidecast/bin/python -m pip install --no-cache-dir --disable-pip-version-check -c requirements.lock '.[dashboard]'

FROM python:3.11-slim-bookworm
RUN useradd --uid 10001 --create-home --home-dir /var/lib/tidecast tidecast
COPY --from=build /opt/tidecast /opt/tidecast
ENV PATH=/opt/tidecast/bin:$PATH \
    PYTHONUNBUFFERED=1
USER 10001:10001
# Downloaded models are cached in .tidecast here: mount a volume, and a restart works without the registry.
WORKDIR /var/lib/tidecast
ENTRYPOINT ["tidecast"]
CMD ["--help"]
