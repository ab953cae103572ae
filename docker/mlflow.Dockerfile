# An MLflow server with PostgreSQL support, in the version that training uses.
#   docker build -f docker/mlflow.Dockerfile -t tidecast-mlflow .
FROM python:3.11-slim-bookworm
COPY requirements.lock /tmp/requirements.lock
RUN python -m pip install --no-cache-dir --disable-pip-version-check -c /tmp/requirements.lock mlflow 'psycopg[binary]' && \
    useradd --uid 10001 --create-home --home-dir /var/lib/mlflow mlflow && \
    install -d -o mlflow -g mlflow /var/lib/mlflow/artifacts
ENV MLFLOW_DISABLE_TELEMETRY=true \
    MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false
USER 10001:10001
WORKDIR /var/lib/mlflow
ENTRYPOINT ["mlflow", "server"]
