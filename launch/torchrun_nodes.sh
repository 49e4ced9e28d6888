#!/usr/bin/env bash
# One node of several: started on each, with the same settings but for NODE_RANK.
#
#   NODES=2 NODE_RANK=0 MASTER_ADDR=10.0.0.1 launch/torchrun_nodes.sh framework.pretrain run.name=first
#
#   NODES, NODE_RANK   how many there are, and which this is, from 0
#   MASTER_ADDR        address of node 0, as the others see it; MASTER_PORT, 29500, a free port there
#   RANKS              on this node: one a GPU, or a core where there is none
#   NODES_WAIT         30: seconds that nodes wait for one another to be started
#   RESTARTS           0: how often ranks that died are started again
#
# Ends with the exit code of the ranks: 0 done, 2 a mistake to mend, 75 stopped by a signal; start again to go on.
set -euo pipefail

for name in NODES NODE_RANK MASTER_ADDR; do
    if [[ -z ${!name-} ]]; then
        echo "loam: error: $name: is not set; the head of $0 says what it means" >&2
        exit 2
    fi
done

export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"
exec "${PYTHON:-python}" -m framework.launcher \
    --nnodes "$NODES" --node-rank "$NODE_RANK" --master-addr "$MASTER_ADDR" --master-port "${MASTER_PORT:-29500}" \
    --nproc-per-node "${RANKS:-auto}" --max-restarts "${RESTARTS:-0}" -m "$@"
