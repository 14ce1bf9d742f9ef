#!/usr/bin/env nextflow
// A cohort with Nextflow: plan, shares, tables and report. Nobody has run it yet: its grammar was checked by a linter
// (reftrace), and a test holds its commands against the options of this program.
//
//   nextflow run pipelines/nextflow/main.nf --slides slides.csv --cohort cohort --shares 16 -resume
//
// Bad slides do not stop it: `wsi-nuc cohort status` and the report name them. A task that was stopped is called again and
// goes on from its last region, and a share that is done takes seconds. Plan, results and tables lie in the cohort's
// folder, which all nodes have to see. The tasks only pass on that they are done. Their CPUs, memory and time are stated
// below; change them by `process { withName: share { cpus = 8 } }` in a file that -c names.

params.slides = null // CSV with a column `slide`
params.cohort = 'cohort' // the folder of the cohort
params.shares = 4 // how many tasks compute
params.program = 'wsi-nuc' // how the program is started
params.planning = '' // further options of `cohort plan`, such as '--model classical'
params.running = '' // further options of `cohort run`, such as '--device all'

process plan {
    cpus 4
    memory '4 GB'
    time '4h'
    errorStrategy 'retry'
    maxRetries 3

    input:
    path list // so that a changed list is planned anew
    val slides
    val cohort

    output:
    val cohort

    script:
    """
    ${params.program} cohort plan '${slides}' --out '${cohort}' --workers ${task.cpus} --overwrite --allow-failed ${params.planning}
    """
}

process share {
    tag "${index}/${params.shares}"
    cpus 4
    memory '4 GB'
    time '4h'
    errorStrategy 'retry'
    maxRetries 3

    input:
    val cohort
    each index

    output:
    val cohort

    script:
    """
    ${params.program} cohort run '${cohort}' --shard ${index}/${params.shares} --workers ${task.cpus} --allow-failed ${params.running}
    """
}

process tables {
    cpus 1
    memory '1 GB'
    cache false

    input:
    val cohorts // one from each share

    output:
    val cohort

    script:
    cohort = cohorts[0]
    """
    ${params.program} cohort collect '${cohort}' --allow-failed
    ${params.program} cohort report '${cohort}'
    """
}

workflow {
    if (!params.slides) {
        error 'Name the list of slides: --slides slides.csv'
    }
    list = file(params.slides, checkIfExists: true)
    cohort = file(params.cohort)
    planned = plan(list, list.toString(), cohort.toString())
    shares = share(planned, Channel.of(1..params.shares))
    tables(shares.collect())
    tables.out.view { folder -> "tables and report: ${folder}" }
}
