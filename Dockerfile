# On a machine without a GPU:  docker build -t dinodemo .
# With an NVIDIA GPU:          docker build --build-arg LOCK=requirements.lock -t dinodemo .
FROM python:3.11-slim-bookworm

# what OpenCV's wheel expects of the system
RUN apt-get update \
    && apt-get install -y --no-install-recommends libgl1 libglib2.0-0 \
    && rm -rf /var/lib/apt/lists/*

RUN useradd --create-home --uid 1000 person \
    && mkdir /data \
    && chown person /data
WORKDIR /home/person/dinodemo

ARG LOCK=requirements-cpu.lock
COPY requirements.lock requirements-cpu.lock ./
RUN pip install --no-cache-dir --require-hashes --extra-index-url https://download.pytorch.org/whl/cpu -r ${LOCK}

COPY --chown=person app.py LICENSE ./
COPY --chown=person assets assets
COPY --chown=person weights weights
COPY --chown=person dinodemo dinodemo

USER person
RUN python -m dinodemo.cli weights fetch

ENV HOST=0.0.0.0 PORT=7860 RUNS=/data/runs PUBLIC=1 PYTHONUNBUFFERED=1
EXPOSE 7860
VOLUME /data
HEALTHCHECK --interval=30s --start-period=60s \
    CMD python -c "import urllib.request as r; r.urlopen('http://127.0.0.1:7860/healthz', timeout=10)"
CMD ["python", "app.py"]
