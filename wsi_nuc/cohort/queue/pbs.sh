# OpenPBS and PBS Professional. This follows their manuals; nobody has tried it yet.
# PBS gives no warning before the time is up, so this script warns itself. PBS restarts a task that is preempted.
TASK=${PBS_ARRAY_INDEX:-${SHARE:?submit this as submit.sh does: qsub -J 1-N}}
JOB=${PBS_JOBID%%.*}
(
    sleep $((SECONDS_PER_TASK - 120))
    kill -USR1 $$
) &
# Only operators may use qrerun, so the share is submitted again by itself.
again() { qsub -v "SHARE=$TASK" "$COHORT/queue/array.pbs"; }
