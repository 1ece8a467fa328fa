# The service from its lock file, as a user who is not root.
FROM python:3.13-slim AS build
WORKDIR /src
RUN python -m venv /opt/indexd
COPY deploy/requirements.lock deploy/requirements.lock
RUN /opt/indexd/bin/pip install --no-cache-dir --require-hashes -r deploy/requirements.lock
COPY pyproject.toml README.md LICENSE ./
COPY migrations migrations
COPY policies policies
COPY src src
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheels . \
 && /opt/indexd/bin/pip install --no-cache-dir --no-deps /wheels/*.whl

FROM python:3.13-slim
RUN useradd --uid 10001 --create-home --home-dir /var/lib/indexd indexd
COPY --from=build /opt/indexd /opt/indexd
ENV PATH=/opt/indexd/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    INDEXD_BIND_ADDR=0.0.0.0:8080 \
    INDEXD_DATA_DIR=/var/lib/indexd
USER 10001
EXPOSE 8080
VOLUME /var/lib/indexd
HEALTHCHECK --interval=10s --timeout=3s --start-period=60s \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8080/healthz', timeout=2)"]
ENTRYPOINT ["indexd"]
CMD ["serve"]
