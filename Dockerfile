# A Beam worker with the locked packages and this package, for Dataflow, Flink or Spark.
# Not tried here: the base images need a container registry. Python: the same minor version as
# the program that submits the job; BEAM: the version in requirements.lock.
ARG PYTHON=3.11
ARG BEAM=2.77.0

FROM apache/beam_python${PYTHON}_sdk:${BEAM} AS beam

FROM python:${PYTHON}-slim
WORKDIR /segthor
COPY requirements.lock .
RUN pip install --no-cache-dir --require-hashes -r requirements.lock
COPY . .
RUN pip install --no-cache-dir --no-deps .
# Beam's start program: it fetches what a job brings along, then runs the worker.
COPY --from=beam /opt/apache/beam /opt/apache/beam
ENTRYPOINT ["/opt/apache/beam/boot"]
