/**
 * Runs test files, each in a process of its own, then the addon's under the sanitizers, and looks for what they left
 * behind. A test that is skipped has failed. The last line is the verdict: `N passed, N failed`.
 *
 * Started by scripts/test, with a /run/netns and a /run/tweed-lab of its own: every name in there is of a test.
 */

import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { globSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { run } from 'node:test'
import { spec } from 'node:test/reporters'
import { checkKernel, checkMachine } from '../src/lab/requirements.ts'
import { LABS_DIRECTORY, LabError } from '../src/lab/topology.ts'

interface Tally {
  readonly passed: number
  readonly failed: number
}

/** Those of test/vm/ need what the kernel of this machine may not have. */
const EVERYTHING = ['src/**/*.test.ts', 'test/*.test.ts', 'test/!(vm)/**/*.test.ts']
/** Files at a time. Each has its namespaces for itself, and most of them wait for the kernel most of the time. */
const CONCURRENCY = 2

/** In the environment of every process that a test starts, however far it gets away from its parents. */
const MARK = `TWEED_TEST_RUN=${process.pid}`

async function main(patterns: readonly string[]): Promise<boolean> {
  try {
    await checkMachine()
    await checkKernel('test')
  } catch (error) {
    if (!(error instanceof LabError)) throw error
    process.stderr.write(`test: ${error.message}\n`)
    return false
  }
  const found = (patterns.length === 0 ? EVERYTHING : patterns).map((pattern) => globSync(pattern))
  if (found.some((files) => files.length === 0)) {
    process.stderr.write(`test: not every name stands for a file: ${patterns.join(' ')}\n`)
    return false
  }

  const scratch = mkdtempSync(join(tmpdir(), 'tweed-test-'))
  const compiled = mkdtempSync(join(tmpdir(), 'tweed-compiled-'))
  const before = new Set(links())
  process.env['TMPDIR'] = scratch
  process.env['TWEED_TEST_RUN'] = `${process.pid}`
  // Agents are started by the hundred, from source.
  process.env['NODE_COMPILE_CACHE'] = compiled
  const stop = new AbortController()
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.on(signal, () => stop.abort())

  // Those of the addon are for one processor, and the others wait now and then.
  const sanitized = patterns.length === 0 ? runSanitizers(stop.signal) : undefined
  const tallies = [await runFiles([...new Set(found.flat())].toSorted(), stop.signal)]
  if (sanitized !== undefined) {
    const { said, tally } = await sanitized
    process.stdout.write(
      `\nthe native addon under the address, leak and undefined-behaviour sanitizers:\n${said}`,
    )
    tallies.push(tally)
  }
  const remains = [...links().filter((link) => !before.has(link)), ...ownTraces(scratch)]
  tallies.push(judge(remains))
  for (const pid of processes()) kill(pid)
  for (const folder of [scratch, compiled]) rmSync(folder, { recursive: true, maxRetries: 5 })

  const passed = tallies.reduce((sum, tally) => sum + tally.passed, 0)
  const failed = tallies.reduce((sum, tally) => sum + tally.failed, 0)
  process.stdout.write(`${passed} passed, ${failed} failed\n`)
  return failed === 0
}

async function runFiles(files: readonly string[], signal: AbortSignal): Promise<Tally> {
  let tally: Tally = { passed: 0, failed: 1 }
  const events = run({ files: [...files], concurrency: CONCURRENCY, signal })
  events.on('test:summary', ({ file, counts }) => {
    if (file === undefined) tally = { passed: counts.passed, failed: counts.tests - counts.passed }
  })
  const deaths: string[] = []
  events.on('test:fail', ({ name, details }) => {
    const { exitCode, signal } = details.error as { exitCode?: number | null; signal?: NodeJS.Signals | null }
    if (typeof signal === 'string') deaths.push(`${name} was ended by ${signal}`)
    else if (typeof exitCode === 'number') deaths.push(`${name} ended with code ${exitCode}`)
  })
  const report = events.compose(spec())
  report.pipe(process.stdout, { end: false })
  await once(report, 'end')
  // The reporter has no words for a file that failed as a whole.
  process.stdout.write(deaths.map((death) => `${death}\n`).join(''))
  return tally
}

/** What was said is for later: a report is being written meanwhile. */
async function runSanitizers(signal: AbortSignal): Promise<{ readonly said: string; readonly tally: Tally }> {
  const child = spawn('sh', ['scripts/test-asan'], { stdio: ['ignore', 'pipe', 'pipe'] })
  signal.addEventListener('abort', () => child.kill())
  let said = ''
  for (const stream of [child.stdout, child.stderr])
    stream.setEncoding('utf8').on('data', (text: string) => (said += text))
  const [code] = await once(child, 'close')
  return { said, tally: code === 0 ? { passed: 1, failed: 0 } : { passed: 0, failed: 1 } }
}

function judge(remains: readonly string[]): Tally {
  if (remains.length === 0) return { passed: 1, failed: 0 }
  process.stdout.write(`\nthe tests left behind:\n${remains.map((trace) => `  ${trace}\n`).join('')}`)
  return { passed: 0, failed: 1 }
}

/** The machine's own interfaces. */
function links(): string[] {
  return list('/sys/class/net', 'link')
}

function ownTraces(scratch: string): string[] {
  const running = processes().map(
    (pid) => `process ${pid} ${readProcess(pid, 'cmdline').replaceAll('\0', ' ')}`,
  )
  return [
    ...list('/run/netns', 'namespace'),
    ...list(LABS_DIRECTORY, 'lab'),
    ...list(scratch, 'temporary file'),
    ...running,
  ]
}

/** The processes that carry our mark. */
function processes(): number[] {
  const pids = readdirSync('/proc').map(Number).filter(Number.isInteger)
  return pids.filter((pid) => readProcess(pid, 'environ').split('\0').includes(MARK))
}

function kill(pid: number): void {
  try {
    process.kill(pid, 'SIGKILL')
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error
  }
}

/** Empty for a process that has ended. */
function readProcess(pid: number, file: 'cmdline' | 'environ'): string {
  try {
    return readFileSync(`/proc/${pid}/${file}`, 'utf8')
  } catch {
    return ''
  }
}

function list(folder: string, kind: string): string[] {
  try {
    return readdirSync(folder).map((name) => `${kind} ${name}`)
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return []
    throw error
  }
}

process.exit((await main(process.argv.slice(2))) ? 0 : 1)
