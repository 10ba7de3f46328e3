/** The programs that are measured: tweed as its users get it, the C programs of this folder, a flanneld to compare with. */

import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { cpSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { get } from 'node:http'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { build } from 'esbuild'
import { run } from '../src/lab/command.ts'
import { ETCD_PREFIX, ETCD_URL } from '../src/lab/registry.ts'
import type { LabHost, Namespace } from '../src/lab/topology.ts'
import { statusSocketPath } from '../src/status/client.ts'

/** Milliseconds. */
const PATIENCE = 60_000

const ROOT = fileURLToPath(new URL('..', import.meta.url))

const MOUNT = 'mkdir -p /run/wireguard && mount -t tmpfs wireguard /run/wireguard && exec "$@"'
const OWN_FILES = ['unshare', '--mount', 'sh', '-c', MOUNT, 'sh']

export interface Programs {
  readonly tweed: string
  /** The words that start it, on the Node and with the flags of `bin/tweed`; its own arguments follow. */
  readonly bare: readonly string[]
  /** The same for one that answers misses. */
  readonly bareAnswer: readonly string[]
  readonly floor: string
  readonly arrivals: string
  readonly answer: string
  /** A binary that takes flanneld's flags. */
  readonly peer: string | undefined
}

/** Makes them in a folder that is removed when the work is done. */
export async function withPrograms<T>(
  peer: string | undefined,
  work: (programs: Programs) => Promise<T>,
): Promise<T> {
  const folder = mkdtempSync(join(tmpdir(), 'tweed-bench-'))
  try {
    const compile = async (name: string): Promise<string> => {
      const binary = join(folder, name)
      await run('gcc', ['-O2', '-Wall', '-o', binary, join(ROOT, 'bench', `${name}.c`)])
      return binary
    }
    const [floor, arrivals] = [await compile('floor'), await compile('arrivals')]
    const answer = await compile('answer')
    const tweed = await bundle(folder)
    const [bare, bareAnswer] = [await bundleBare(folder, 'bare'), await bundleBare(folder, 'bare-answer')]
    return await work({ tweed, bare, bareAnswer, floor, arrivals, answer, peer })
  } finally {
    rmSync(folder, { recursive: true })
  }
}

/** What the npm package holds; it runs on the Node that runs this bench. */
async function bundle(folder: string): Promise<string> {
  const root = join(folder, 'package')
  await run(process.execPath, [join(ROOT, 'scripts/bundle.ts'), root])
  for (const part of ['bin', 'native/build', 'package.json']) {
    cpSync(join(ROOT, part), join(root, part), { recursive: true })
  }
  return join(root, 'bin/tweed')
}

/**
 * One CommonJS file, in which Node's own modules are required, as they are in tweed's bundle; beside that, from where it
 * finds the same addon.
 */
async function bundleBare(folder: string, name: string): Promise<string[]> {
  const main = join(folder, `package/lib/${name}.cjs`)
  await build({
    entryPoints: [join(ROOT, `bench/${name}.ts`)],
    outfile: main,
    bundle: true,
    platform: 'node',
    target: 'node22.18',
    banner: { js: "const urlOfBundle = require('node:url').pathToFileURL(__filename)" },
    define: { 'import.meta.url': 'urlOfBundle' },
  })
  const launcher = readFileSync(join(ROOT, 'bin/tweed'), 'utf8')
  const start = launcher.slice(launcher.indexOf('\nexport '))
  return ['sh', '-c', `node=$1 main=$2; shift 2${start}`, 'sh', process.execPath, main]
}

/** An agent, whosoever it is, on a host of the stage. */
export class Agent {
  readonly #child: ChildProcess
  readonly #host: LabHost

  private constructor(child: ChildProcess, host: LabHost) {
    this.#child = child
    this.#host = host
  }

  /**
   * Does not wait for it to be ready.
   *
   * @param program `tweed`, or what takes flanneld's flags.
   * @param files Whether the host has a /run/wireguard of its own, where wireguard-go names its sockets by the link alone.
   */
  static start(program: readonly string[], host: LabHost, { files = false } = {}): Agent {
    const flags = [
      `-etcd-endpoints=${ETCD_URL}`,
      `-etcd-prefix=${ETCD_PREFIX}`,
      '-iface=eth0',
      `-public-ip=${host.publicIp}`,
      `-subnet-file=${host.subnetFile}`,
      '-iptables-forward-rules=false',
    ]
    // npm puts its own folders first; the package looks for Node in PATH.
    const env = {
      ...process.env,
      PATH: `${dirname(process.execPath)}:${process.env['PATH']}`,
      WIREGUARD_KEY_FILE: join(dirname(host.subnetFile), 'wgkey'),
    }
    const words = [`--net=${host.path}`, ...(files ? OWN_FILES : []), ...program, ...flags]
    return new Agent(spawn('nsenter', words, { stdio: 'ignore', env }), host)
  }

  get pid(): number {
    if (this.#child.pid === undefined) throw new Error('the agent did not start')
    return this.#child.pid
  }

  /** Why it is no more; undefined while it runs. */
  get end(): string | undefined {
    const { exitCode, signalCode } = this.#child
    return signalCode ?? (exitCode === null ? undefined : `exit code ${exitCode}`)
  }

  signal(signal: NodeJS.Signals): void {
    this.#child.kill(signal)
  }

  /** Until tweed says that all is as it should be. @throws when it ends, or takes too long. */
  async untilReady(): Promise<void> {
    const deadline = performance.now() + PATIENCE
    while (!(await isReady(statusSocketPath(this.#host.subnetFile)))) {
      if (this.end !== undefined) throw new Error(`the agent has ended: ${this.end}`)
      if (performance.now() > deadline) throw new Error(`the agent is not ready after ${PATIENCE / 1000} s`)
      await sleep(20)
    }
  }

  async stop(signal: NodeJS.Signals = 'SIGTERM'): Promise<void> {
    if (this.end !== undefined) return
    const exit = once(this.#child, 'exit')
    this.#child.kill(signal)
    await exit
  }

  /** MiB, resident and the most that it was. */
  get memory(): { readonly resident: number; readonly peak: number } {
    const status = readFileSync(`/proc/${this.pid}/status`, 'utf8')
    const field = (name: string): number => Number(new RegExp(`${name}:\\s+(\\d+)`).exec(status)?.[1]) / 1024
    return { resident: field('VmRSS'), peak: field('VmHWM') }
  }

  /** What all its threads have used of a processor, in ms. */
  get cpu(): number {
    const threads = readdirSync(`/proc/${this.pid}/task`)
    const times = threads.map((thread) => {
      const [onCpu] = readFileSync(`/proc/${this.pid}/task/${thread}/schedstat`, 'utf8').split(' ')
      return Number(onCpu) / 1e6
    })
    return times.reduce((sum, time) => sum + time, 0)
  }
}

async function isReady(socketPath: string): Promise<boolean> {
  return new Promise((resolve) => {
    get({ socketPath, path: '/readyz', agent: false }, (response) => {
      response.resume()
      resolve(response.statusCode === 200)
    }).once('error', () => resolve(false))
  })
}

/** Runs a program in a namespace to its end. Gives what it printed, and how long it took from its start, in ms. */
export async function timed(
  where: Namespace,
  words: readonly string[],
  env: Readonly<Record<string, string>> = {},
): Promise<{ readonly output: string; readonly took: number }> {
  const began = performance.now()
  const variables = Object.entries(env).map(([name, value]) => `${name}=${value}`)
  const output = await run('nsenter', [`--net=${where.path}`, 'env', ...variables, ...words])
  return { output, took: performance.now() - began }
}
