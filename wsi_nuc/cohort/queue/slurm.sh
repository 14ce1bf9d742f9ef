# Slurm sends USR1 two minutes before the time is up, and to a task that is preempted, if the cluster is set up so
# (preempt_send_user_signal). Everything else that ends a task is Slurm's own decision: scancel, the end of the time,
# preemption without a warning, `scontrol requeue`.
: "${SLURM_ARRAY_TASK_ID:?submit this as submit.sh does: sbatch --array=1-N}"
TASK=$((SLURM_ARRAY_TASK_ID + ${FIRST:-0}))
JOB=${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID

# The id of the last task is that of the whole array, so SLURM_JOB_ID would start completed tasks again. Incomplete: a
# task that was cancelled meanwhile, even if its signal has not come yet, stays cancelled.
again() { scontrol requeue Incomplete "$JOB"; }
