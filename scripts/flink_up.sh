#!/usr/bin/env bash
# Starts a Flink cluster on this machine: a JobManager, two TaskManagers, Beam's job server and
# Python workers, each a process of its own, all on the loopback address.
#
#   scripts/flink_up.sh                          jars into .flink/ the first time, then the cluster
#   FLINK_REST_PORT=9081 scripts/flink_up.sh     other ports, versions, folders: see flink.env
#
# What runs already is left alone, so a second call brings back what was killed.
# Exit status: 0, or 3 where Java, Maven or the jars cannot be had, or 2 for another error.
set -euo pipefail
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
source "$ROOT/scripts/flink.env"

need() { command -v "$1" >/dev/null || fail 3 "Flink needs $1, which is not here; $2"; }

fetch_jars() {
  if [ -e "$FLINK_LIB/complete" ]; then return; fi
  need mvn "install Maven 3 (Debian: apt-get install maven)"
  echo "Fetching Flink $FLINK_VERSION and Beam's runner $BEAM_RUNNER_VERSION, 160 MB ..."
  mvn --quiet --batch-mode -f "$ROOT/scripts/flink_pom.xml" dependency:copy-dependencies \
    -DincludeScope=runtime -DoutputDirectory="$FLINK_LIB" \
    -Dflink.version="$FLINK_VERSION" -Dflink.line="${FLINK_VERSION%.*}" \
    -Dbeam.version="$BEAM_RUNNER_VERSION" -Dlog4j.version="$LOG4J_VERSION" \
    >"$FLINK_RUN/maven.log" 2>&1 || {
      cat "$FLINK_RUN/maven.log" >&2
      fail 3 "Maven could not fetch Flink's jars"
    }
  touch "$FLINK_LIB/complete"
}

write_conf() {
  cat >"$FLINK_RUN/conf/flink-conf.yaml" <<EOF
jobmanager.rpc.address: $FLINK_HOST
jobmanager.rpc.port: $FLINK_RPC_PORT
jobmanager.bind-host: $FLINK_HOST
rest.address: $FLINK_HOST
rest.bind-address: $FLINK_HOST
rest.port: $FLINK_REST_PORT
taskmanager.host: $FLINK_HOST
taskmanager.bind-host: $FLINK_HOST
taskmanager.numberOfTaskSlots: $FLINK_SLOTS
cluster.evenly-spread-out-slots: true
io.tmp.dirs: $FLINK_RUN/tmp
web.submit.enable: false

# A lost TaskManager is noticed within seconds; its tasks start again in free slots.
heartbeat.interval: 1000
heartbeat.timeout: 20000
cluster.registration.error-delay: 500
restart-strategy.type: fixed-delay
restart-strategy.fixed-delay.attempts: 10
restart-strategy.fixed-delay.delay: 1 s

# Flink's own start scripts work these out; a process started by hand wants them spelt out.
taskmanager.cpu.cores: $FLINK_SLOTS
taskmanager.memory.framework.heap.size: 128 mb
taskmanager.memory.task.heap.size: $((FLINK_HEAP_MB - 128)) mb
taskmanager.memory.framework.off-heap.size: 128 mb
taskmanager.memory.task.off-heap.size: 0 mb
taskmanager.memory.managed.size: 128 mb
taskmanager.memory.network.min: 64 mb
taskmanager.memory.network.max: 64 mb
taskmanager.memory.jvm-metaspace.size: 256 mb
taskmanager.memory.jvm-overhead.min: 128 mb
taskmanager.memory.jvm-overhead.max: 128 mb
EOF
  cat >"$FLINK_RUN/conf/log4j2.properties" <<EOF
rootLogger.level = INFO
rootLogger.appenderRef.console.ref = Console
appender.console.type = Console
appender.console.name = Console
appender.console.layout.type = PatternLayout
appender.console.layout.pattern = %d %-5p %c{1} - %m%n%throwable
logger.metrics.name = org.apache.beam.runners.flink.FlinkPipelineRunner
logger.metrics.level = WARN
EOF
}

is_open() { (exec 3<>"/dev/tcp/$FLINK_HOST/$1") 2>/dev/null; }

# start NAME PORT COMMAND...: in the background, with a pid file and a log. PORT 0: any.
start() {
  local name=$1 port=$2
  shift 2
  if is_running "$name"; then return; fi
  if [ "$port" != 0 ] && is_open "$port"; then
    fail 2 "port $port of the $name is taken by another program; choose another, see scripts/flink.env"
  fi
  nohup "$@" >"$FLINK_RUN/$name.log" 2>&1 </dev/null &
  echo $! >"$FLINK_RUN/$name.pid"
  started+=("$name")
}

# start_java NAME PORT CLASS ARGUMENTS...
start_java() {
  local name=$1 port=$2 opens=() package
  shift 2
  # Flink serialises by reflection on classes that Java 17 closes off otherwise.
  for package in lang lang.reflect net io nio text time util util.concurrent \
    util.concurrent.atomic util.concurrent.locks; do
    opens+=("--add-opens=java.base/java.$package=ALL-UNNAMED")
  done
  # Serial collector, first compiler only: these JVMs move rows, and are up in 2/3 of the CPU time.
  start "$name" "$port" java "${opens[@]}" "-Xmx${FLINK_HEAP_MB}m" -XX:+UseSerialGC \
    -XX:TieredStopAtLevel=1 "-Dlog4j.configurationFile=$FLINK_RUN/conf/log4j2.properties" -cp "$FLINK_LIB/*" "$@"
}

start_all() {
  local i package=org.apache.flink.runtime
  start_java jobmanager "$FLINK_REST_PORT" \
    $package.entrypoint.StandaloneSessionClusterEntrypoint --configDir "$FLINK_RUN/conf"
  for i in $(seq "$FLINK_TASKMANAGERS"); do
    start_java "taskmanager-$i" 0 \
      $package.taskexecutor.TaskManagerRunner --configDir "$FLINK_RUN/conf"
  done
  start_java job-server "$BEAM_JOB_PORT" org.apache.beam.runners.flink.FlinkJobServerDriver \
    --flink-master "$FLINK_HOST:$FLINK_REST_PORT" --flink-conf-dir "$FLINK_RUN/conf" \
    --job-host "$FLINK_HOST" --job-port "$BEAM_JOB_PORT" --artifact-port "$BEAM_ARTIFACT_PORT" \
    --expansion-port -1 --artifacts-dir "$FLINK_RUN/artifacts"
  start workers "$BEAM_WORKER_PORT" \
    "$PYTHON" "$ROOT/scripts/flink_workers.py" "$FLINK_HOST:$BEAM_WORKER_PORT" "$FLINK_RUN"
}

is_up() {
  local port log
  for port in "$FLINK_REST_PORT" "$BEAM_JOB_PORT" "$BEAM_WORKER_PORT"; do
    is_open "$port" || return 1
  done
  # The JobManager's own count still holds a TaskManager that was killed a moment ago.
  for log in $(seq -f "$FLINK_RUN/taskmanager-%g.log" "$FLINK_TASKMANAGERS"); do
    grep -q "Successful registration at resource manager" "$log" || return 1
  done
}

wait_until_up() {
  local limit=$((SECONDS + 120)) name
  until is_up; do
    for name in "${started[@]}"; do
      is_running "$name" || fail 2 "the $name has ended; see $FLINK_RUN/$name.log"
    done
    [ "$SECONDS" -lt "$limit" ] || fail 2 "not up after 120 s; see the logs in $FLINK_RUN"
    sleep 0.2
  done
}

stop_started() {
  local name
  for name in "${started[@]}"; do
    kill "$(cat "$FLINK_RUN/$name.pid")" 2>/dev/null || true
    rm -f "$FLINK_RUN/$name.pid"
  done
}

need java "install Java 11 or 17 (Debian: apt-get install default-jre-headless)"
[ -x "$PYTHON" ] || fail 2 "no Python at $PYTHON; run make venv, or set PYTHON"
mkdir -p "$FLINK_LIB" "$FLINK_RUN/conf" "$FLINK_RUN/tmp" "$FLINK_RUN/artifacts"
fetch_jars
write_conf
started=()
trap '[ $? = 0 ] || stop_started' EXIT
start_all
if [ "${#started[@]}" = 0 ] && is_up; then
  echo "Flink is already up: http://$FLINK_HOST:$FLINK_REST_PORT"
  exit
fi
wait_until_up
echo "Flink is up after $SECONDS s: http://$FLINK_HOST:$FLINK_REST_PORT"
echo "Logs and pid files: $FLINK_RUN.  Next:"
echo "  $PYTHON -m beam_jobs.build --flagfile=configs/flink.flags --input=DIR --output=DIR"
echo "  scripts/flink_down.sh"
