/** `npm run bench -- [NAME...] [--peer PATH] [--runs N] [--leases N,N] [--quick] [--json]` */

import { Option } from 'commander'
import { untilInterrupted } from '../src/cli/interrupt.ts'
import { createProgram, integer, runProgram } from '../src/cli/program.ts'
import { checkMachine } from '../src/lab/requirements.ts'
import { CommandError, run } from '../src/lab/command.ts'
import { LabError } from '../src/lab/topology.ts'
import type { Bench } from './bench.ts'
import { convergence } from './convergence.ts'
import { dataPath } from './data-path.ts'
import { drift } from './drift.ts'
import { event } from './event.ts'
import { firstPacket } from './first-packet.ts'
import { formatResult, resultOf, saveResult } from './measure.ts'
import { misses } from './misses.ts'
import { plotConvergence, savePlot } from './plot.ts'
import { withPrograms } from './programs.ts'
import { rest } from './rest.ts'
import { restart } from './restart.ts'

const BENCHES: readonly Bench[] = [convergence, event, drift, restart, firstPacket, misses, dataPath, rest]

const NEEDED = [
  { program: 'etcd', argument: '--version', package: 'etcd-server' },
  { program: 'etcdctl', argument: 'version', package: 'etcd-client' },
  { program: 'gcc', argument: '--version', package: 'gcc libc6-dev' },
  { program: 'iperf3', argument: '--version', package: 'iperf3' },
] as const

interface Flags {
  readonly peer?: string
  readonly runs?: number
  readonly leases?: readonly number[]
  readonly quick?: true
  readonly json?: true
}

async function main(argv: readonly string[]): Promise<void> {
  const names = BENCHES.map(({ name, summary }) => `  ${name.padEnd(14)}${summary}`).join('\n')
  const program = createProgram('bench', 'Measures tweed, side by side with what it is compared with.')
    .argument('[name...]', 'which benches; all of them without a name')
    .option('--peer <path>', 'a binary that takes flanneld’s flags, to be measured beside tweed')
    .addOption(new Option('--runs <n>', 'runs of each candidate in each case').argParser(integer(1, 100)))
    .addOption(new Option('--leases <n,n>', 'numbers of leases to go over').argParser(leaseCounts))
    .option('--quick', 'few and small: to see that the benches work')
    .option('--json', 'the results as JSON, instead of tables')
    .addHelpText('after', `\nBenches:\n${names}`)
    .action((chosen: readonly string[], flags: Flags) =>
      untilInterrupted((signal) => runBenches(chosen, flags, signal)),
    )
  await runProgram(program, argv)
}

async function runBenches(chosen: readonly string[], flags: Flags, signal: AbortSignal): Promise<void> {
  const unknown = chosen.find((name) => BENCHES.every((bench) => bench.name !== name))
  if (unknown !== undefined) {
    throw new LabError(`there is no bench ${unknown}: ${BENCHES.map(({ name }) => name).join(', ')}`)
  }
  await checkMachine()
  for (const needed of NEEDED) await checkProgram(needed)
  const quick = flags.quick === true
  const options = {
    runs: flags.runs ?? (quick ? 1 : 7),
    leases: flags.leases ?? (quick ? [100, 1000] : [100, 1000, 10_000, 20_000, 40_000]),
    quick,
    tell: (line: string) => void process.stderr.write(`${line}\n`),
    signal,
  }
  await withPrograms(flags.peer, async (programs) => {
    for (const bench of BENCHES.filter(({ name }) => chosen.length === 0 || chosen.includes(name))) {
      options.tell(`${bench.name}: ${bench.summary}`)
      const result = resultOf(bench.name, await bench.run(programs, options), flags.peer)
      process.stdout.write(
        flags.json === true ? `${JSON.stringify(result)}\n` : `\n${formatResult(result)}\n`,
      )
      if (quick) continue
      saveResult(result)
      if (bench === convergence) savePlot(plotConvergence(result))
    }
  })
}

function leaseCounts(text: string): readonly number[] {
  return text.split(',').map(integer(1, 65_000))
}

async function checkProgram(needed: (typeof NEEDED)[number]): Promise<void> {
  try {
    await run(needed.program, [needed.argument])
  } catch (error) {
    if (!(error instanceof CommandError)) throw error
    throw new LabError(`${needed.program} is missing: apt-get install ${needed.package}`)
  }
}

await main(process.argv.slice(2))
// A bench that was interrupted may still be asleep.
process.exit()
