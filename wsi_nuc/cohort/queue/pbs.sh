# OpenPBS and PBS Professional. Written by their manuals; nobody has tried it yet.
# PBS gives no warning before the time is up, so this script warns itself. Whoever is preempted is started again by PBS.
TASK=${PBS_ARRAY_INDEX:-${SHARE:?submit this as submit.sh does: qsub -J 1-N}}
JOB=${PBS_JOBID%%.*}
(
    sleep $((SECONDS_A_TASK - 120))
    kill -USR1 $$
) &
# Only operators may use qrerun, so the share is submitted once more, by itself.
again() { qsub -v "SHARE=$TASK" "$COHORT/queue/array.pbs"; }
