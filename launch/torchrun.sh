#!/usr/bin/env bash
# All GPUs of this machine, or as many ranks as RANKS says:
#
#   launch/torchrun.sh framework.pretrain model=tiny run.name=first
#
# Ends with the exit code of the ranks: 0 done, 2 a mistake to mend, 75 stopped by a signal; start again to go on.
set -euo pipefail

export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"
exec "${PYTHON:-python}" -m framework.launcher --standalone \
    --nproc-per-node "${RANKS:-auto}" --max-restarts "${RESTARTS:-0}" -m "$@"
