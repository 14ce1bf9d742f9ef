# LSF. This follows its manual; nobody has tried it yet.
# USR1 comes two minutes before the time is up (-wa, -wt). A task that ends with 75 is queued again by LSF (-Q).
TASK=$((${LSB_JOBINDEX:?submit this as submit.sh does: bsub -J "wsi-nuc[1-N]"} + ${FIRST:-0}))
JOB=${LSB_JOBID}_$LSB_JOBINDEX
again() { exit 75; }
