#!/bin/bash
#SBATCH --job-name=climlstm
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=16
#SBATCH --gpus-per-node=4
#SBATCH --time=24:00:00
#SBATCH --signal=B:TERM@120
#SBATCH --requeue
#
# Ray over a Slurm allocation, one run on it, and a clean end:
#   sbatch cluster/slurm.sh RUN.yaml [--set KEY=VALUE ...]
# 120 s before its time is over the job asks to be queued again, and --resume then goes on.
# srun ends the processes of its step with the job, so that none is looked for by name.

set -euo pipefail
run_file=${1:?usage: sbatch slurm.sh RUN.yaml [--set KEY=VALUE ...]}
shift

port=$((20000 + SLURM_JOB_ID % 10000)) # Ray's own workers have 10002 to 19999
mapfile -t hosts < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
address=$(srun --nodes=1 --ntasks=1 --nodelist="${hosts[0]}" hostname --ip-address)
address=${address%% *}

# Other users may share the network: nobody without this token can use the cluster.
export RAY_AUTH_MODE=token
RAY_AUTH_TOKEN=$(od -An -N32 -tx1 /dev/urandom | tr -d ' \n')
export RAY_AUTH_TOKEN
export RAY_health_check_period_ms=1000 RAY_health_check_timeout_ms=2000
export RAY_health_check_failure_threshold=3
export OMP_WAIT_POLICY=passive

resources=(--num-cpus="$SLURM_CPUS_PER_TASK" --num-gpus="${SLURM_GPUS_ON_NODE:-0}")
steps=()
training=

finish() {
    local status=$?
    trap - EXIT TERM
    for step in $training "${steps[@]}"; do
        kill -TERM "$step" 2>/dev/null || true
    done
    wait
    exit "$status"
}

again() {
    scontrol requeue "$SLURM_JOB_ID" || true
    exit 0
}
trap finish EXIT
trap again TERM

srun --nodes=1 --ntasks=1 --overlap --nodelist="${hosts[0]}" \
    ray start --block --head --node-ip-address="$address" --port="$port" \
    --dashboard-host=127.0.0.1 --temp-dir="${RAY_FOLDER:-/tmp/ray-$SLURM_JOB_ID}" \
    --disable-usage-stats "${resources[@]}" &
steps+=($!)

export RAY_ADDRESS="$address:$port"
for _ in $(seq 60); do
    ray status >/dev/null 2>&1 && break
    kill -0 "${steps[0]}" # the head has ended: its error stands above
    sleep 2
done

for host in "${hosts[@]:1}"; do
    srun --nodes=1 --ntasks=1 --overlap --nodelist="$host" \
        ray start --block --address="$RAY_ADDRESS" --disable-usage-stats "${resources[@]}" &
    steps+=($!)
done

climlstm train "$run_file" --address "$RAY_ADDRESS" --resume "$@" &
training=$!
wait "$training"
