# What a task does, whichever queue it runs in. Set above: COHORT, PLAN, SHARDS, PROGRAM, COMMAND, OPTIONS, RESTARTS, TIME;
# by the queue's own part: TASK, JOB, and `again`, which puts this task, and no other, back into the queue.
stopped=
warned() {
    [[ -n $stopped ]] || stopped=warned
    kill -USR1 "${run:-}" 2> /dev/null
}
# Whoever sends TERM has decided what becomes of the task: nothing is put back. Most queues tell all processes
# themselves, and a program that is told twice drops everything, so it is only told by us if it goes on.
ended() {
    stopped=ended
    for _ in 1 2 3 4 5 6; do
        kill -0 "${run:-}" 2> /dev/null || return
        sleep 0.5
    done
    kill -TERM "$run" 2> /dev/null
}
trap warned USR1
trap ended TERM INT

say() { echo "wsi-nuc: task $TASK of $SHARDS on ${HOSTNAME:-this node}: $*" >&2; }

if [[ ! -r $COHORT/plan.json ]]; then
    say "this node does not see $COHORT/plan.json. Put the cohort into a folder that every node mounts."
    exit 2
fi
if [[ $(sha256sum < "$COHORT/plan.json") != "$PLAN "* ]]; then
    say "the cohort was planned anew after this script was written. Write and submit the script again:" \
        "wsi-nuc cohort slurm $COHORT"
    exit 2
fi
if ((TASK < 1 || TASK > SHARDS)); then
    say "there is no such share. Submit numbers from 1 to $SHARDS."
    exit 2
fi

# A line for each start and for each finished region, of all starts of this task.
journal=$COHORT/queue/logs/$JOB.journal
echo start >> "$journal"
[[ $stopped != ended ]] || exit 143
"${PROGRAM[@]}" cohort "$COMMAND" "$COHORT" --shard "$TASK/$SHARDS" --journal "$journal" "${OPTIONS[@]}" &
run=$!
# The warning may have come before there was anybody to pass it on to.
[[ $stopped != warned ]] || kill -USR1 "$run"
# A signal ends `wait`, not the program that is waited for.
wait "$run"
code=$?
while kill -0 "$run" 2> /dev/null; do
    wait "$run"
    code=$?
done

[[ $stopped != ended ]] || exit 143
# Over 128: the warning came before the program could listen to it.
if [[ $stopped == warned ]] && ((code == 75 || code > 128)); then
    if (($(tail -n "$RESTARTS" "$journal" | grep -c '^start$') >= RESTARTS)); then
        say "it was stopped $RESTARTS times in a row before it had finished a single region. Finished regions are" \
            "kept. Raise --time, which is $TIME: wsi-nuc cohort slurm $COHORT --time ..."
        exit 1
    fi
    if ! again; then
        [[ $stopped != ended ]] || exit 143
        say "it could not be put back into the queue. Submit number $TASK again."
        exit "$code"
    fi
    # The queue ends this script in order to start it anew; an end of its own would be taken for a failure.
    [[ $stopped == ended ]] || { sleep 60 & wait $!; }
fi
exit "$code"
