FROM python:3.12-slim AS build
WORKDIR /build
RUN apt-get update && apt-get install -y --no-install-recommends gcc libc6-dev
RUN python -m venv /opt/beamcast
COPY requirements.txt .
RUN /opt/beamcast/bin/pip install --no-cache-dir --require-hashes -r requirements.txt
COPY pyproject.toml setup.py README.md LICENSE ./
COPY broadcaster broadcaster
COPY workers workers
COPY gateway gateway
RUN /opt/beamcast/bin/pip install --no-cache-dir --no-deps --no-build-isolation .

FROM python:3.12-slim
COPY --from=build /opt/beamcast /opt/beamcast
ENV PATH=/opt/beamcast/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
RUN useradd --uid 10001 --no-create-home --shell /usr/sbin/nologin beamcast
USER 10001:10001
ENTRYPOINT ["beamcast"]
CMD ["up"]
