# --- Installs the requirements; none of the tools needed for it reach the image that runs.
FROM python:3.12-slim AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
COPY requirements.txt .
RUN python -m venv /opt/venv && /opt/venv/bin/pip install -r requirements.txt

# --- What runs.
FROM python:3.12-slim
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    HOST=0.0.0.0 \
    PORT=8000 \
    DATA_DIR=/srv/tollgate/data \
    STATIC_ROOT=/srv/tollgate/static
RUN useradd --system --uid 10001 --home-dir /srv/tollgate tollgate
COPY --from=build /opt/venv /opt/venv
WORKDIR /srv/tollgate
COPY . .
# The code belongs to root: the gateway can write its data and nothing else. Static files are named by their
# content; the key that this command makes up goes with its folder.
RUN python -m compileall -q app \
    && DATA_DIR=/tmp/build python app/manage.py collectstatic --noinput --verbosity 0 && rm -r /tmp/build \
    && install -d -o tollgate -g tollgate -m 0700 data
USER tollgate
VOLUME /srv/tollgate/data
EXPOSE 8000
# Alive is enough here: a database that is away for a moment is no reason to restart.
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python", "docker/healthcheck.py"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["python", "app/manage.py"]
CMD ["serve"]
