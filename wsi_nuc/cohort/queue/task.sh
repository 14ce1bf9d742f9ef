# What a task does in any queue. COHORT, PLAN, SHARDS, PROGRAM, COMMAND, OPTIONS, RESTARTS and TIME are set above. The
# queue's own part sets TASK, JOB, and `again`, which puts this task, and no other, back into the queue.
stopped=
warned() {
    [[ -n $stopped ]] || stopped=warned
    kill -USR1 "${run:-}" 2> /dev/null
}
# Whoever sends TERM has decided what becomes of the task, so it is not put back. Most queues signal all processes
# themselves. A program that gets TERM twice drops everything, so we only send it if the program goes on.
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

# It has a line for each start of this task and for each finished region.
journal=$COHORT/queue/logs/$JOB.journal
echo start >> "$journal"
[[ $stopped != ended ]] || exit 143
"${PROGRAM[@]}" cohort "$COMMAND" "$COHORT" --shard "$TASK/$SHARDS" --journal "$journal" "${OPTIONS[@]}" &
run=$!
# The warning may have come before the program ran.
[[ $stopped != warned ]] || kill -USR1 "$run"
# A signal ends `wait`, but not the program.
wait "$run"
code=$?
while kill -0 "$run" 2> /dev/null; do
    wait "$run"
    code=$?
done

[[ $stopped != ended ]] || exit 143
# A code over 128 means that the warning came before the program could handle it.
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
    # The queue ends this script in order to start it again. If it ended by itself that would count as a failure.
    [[ $stopped == ended ]] || { sleep 60 & wait $!; }
fi
exit "$code"
