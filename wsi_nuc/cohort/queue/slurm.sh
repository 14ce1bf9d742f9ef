# Slurm sends USR1 two minutes before the time is up. If the cluster has preempt_send_user_signal it also sends it to a
# task that is preempted. Whatever else ends a task is Slurm's own decision: scancel, the end of the time, preemption
# without a warning, `scontrol requeue`.
: "${SLURM_ARRAY_TASK_ID:?submit this as submit.sh does: sbatch --array=1-N}"
TASK=$((SLURM_ARRAY_TASK_ID + ${FIRST:-0}))
JOB=${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID

# The last task has the id of the whole array, so SLURM_JOB_ID would start completed tasks again. With Incomplete a task
# that was cancelled meanwhile stays cancelled, even if its signal has not come yet.
again() { scontrol requeue Incomplete "$JOB"; }
