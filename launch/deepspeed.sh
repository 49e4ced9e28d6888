#!/usr/bin/env bash
# DeepSpeed's own launcher, for those who have its hostfile.
#
#   launch/deepspeed.sh framework.pretrain run.name=first                          # this machine; RANKS of them, or a GPU each
#   HOSTFILE=launch/hostfile launch/deepspeed.sh framework.pretrain run.name=first # all of the file, by ssh (and pdsh)
#   HOSTFILE=launch/hostfile NODE_RANK=0 MASTER_ADDR=10.0.0.1 \
#       launch/deepspeed.sh framework.pretrain run.name=first                      # on each machine, without ssh
#
# Over ssh every machine needs this directory at the same place. Its exit code is 1 whatever that of the ranks; a
# run that is to be started again by its code takes torchrun_nodes.sh.
set -euo pipefail

export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"
where=(--master_port "${MASTER_PORT:-29500}")
if [[ -n ${NODE_RANK-} ]]; then
    NODES="$(grep -cv '^ *\(#\|$\)' "${HOSTFILE:?with NODE_RANK, HOSTFILE lists the machines}")"
    export NODES NODE_RANK MASTER_ADDR="${MASTER_ADDR-}" MASTER_PORT="${MASTER_PORT:-29500}"
    "${PYTHON:-python}" -m framework.rendezvous
    where+=(--hostfile "$HOSTFILE" --no_ssh --node_rank "$NODE_RANK" --master_addr "$MASTER_ADDR")
elif [[ -n ${HOSTFILE-} ]]; then
    where+=(--hostfile "$HOSTFILE")
elif [[ -n ${RANKS-} ]]; then
    if [[ ! $RANKS =~ ^[1-9][0-9]*$ ]]; then
        echo "loam: error: RANKS: '$RANKS' is no number of ranks; give 1 or more, or unset it" >&2
        exit 2
    fi
    where+=(--num_accelerators "$RANKS")
fi
exec "$(dirname "$(command -v "${PYTHON:-python}")")/deepspeed" "${where[@]}" --no_local_rank --module "$@"
