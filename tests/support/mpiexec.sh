#!/usr/bin/env bash
# Starts a test under mpirun: as root (containers), with more ranks than cores, yielding when idle.
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
exec mpirun --oversubscribe --bind-to none --mca mpi_yield_when_idle 1 \
  --mca btl_base_warn_component_unused 0 --mca btl self,vader "$@"
