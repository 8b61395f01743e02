# One node of replicad. Of the base image it needs Python 3.11 or newer with venv and pip, and while building a shell.
ARG BASE_IMAGE=python:3.12-slim

FROM ${BASE_IMAGE} AS builder
# `docker image prune --filter label=replicad.stage` removes what builds leave behind.
LABEL replicad.stage=builder
# Another package index, if there is one. It stays in this stage: the final image's history does not show it.
ARG PIP_INDEX_URL
WORKDIR /build
# Without pip inside: the final image installs nothing.
RUN python3 -m venv --without-pip /opt/replicad
COPY requirements.lock ./
RUN python3 -m pip --python /opt/replicad/bin/python install --quiet --no-cache-dir --requirement requirements.lock
COPY LICENSE pyproject.toml ./
COPY configs/compose.toml configs/
COPY replicad replicad/
# The settings go along, readable whatever the umask of the checkout was.
RUN python3 -m pip --python /opt/replicad/bin/python wheel --quiet --no-cache-dir --no-deps --wheel-dir dist . \
    && python3 -m pip --python /opt/replicad/bin/python install --quiet --no-cache-dir --no-deps dist/*.whl \
    && install -D --mode=0644 configs/compose.toml /opt/replicad/etc/compose.toml

FROM ${BASE_IMAGE}
LABEL replicad.stage=node
# A fixed uid, on which volumes and other machines agree. A new volume takes over the directory with its owner.
RUN useradd --uid 10001 --user-group --no-create-home --home-dir /var/lib/replicad --shell /usr/sbin/nologin replicad \
    && install --directory --owner=replicad --group=replicad --mode=0750 /var/lib/replicad
# The modules are compiled already; nothing but the data directory need be writable.
ENV PATH=/opt/replicad/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
WORKDIR /var/lib/replicad
EXPOSE 7001 8001 9001
# SIGTERM hands over, finishes, flushes and leaves.
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=5s --timeout=5s --start-period=30s --retries=3 \
    CMD ["replicad", "status", "--ready", "--addr", "127.0.0.1:8001"]
ENTRYPOINT ["replicad"]
CMD ["serve", "--config", "/opt/replicad/etc/compose.toml"]
COPY --from=builder /opt/replicad /opt/replicad
USER 10001:10001
