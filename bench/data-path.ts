/**
 * What a backend carries, container to container; beside it host to host, without one. One machine plays both hosts, so that
 * only the ratios mean something. WireGuard is the kernel's where it has it, else wireguard-go. Not here: ipip and ipsec, for
 * which many a kernel of a bench machine has no module.
 */

import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { type Ip, parseIp } from '../src/address/ip.ts'
import { parsePrefix } from '../src/address/prefix.ts'
import { hostStatus } from '../src/lab/agent.ts'
import { attachContainer } from '../src/lab/build.ts'
import { run } from '../src/lab/command.ts'
import { ping } from '../src/lab/ping.ts'
import { containerAddresses, type Namespace } from '../src/lab/topology.ts'
import type { Bench, Options } from './bench.ts'
import { amongHosts } from './crowd.ts'
import { type Measured, median, type Row } from './measure.ts'
import { type BackendSettings, MODES } from './network.ts'
import type { Programs } from './programs.ts'
import { Stage } from './stage.ts'

/** Each by its settings; without them, host to host. */
const CANDIDATES: Readonly<Record<string, BackendSettings | undefined>> = {
  'host to host': undefined,
  'host-gw': { Type: 'host-gw' },
  'vxlan, static': MODES.static,
  'vxlan, L3 miss': MODES.l3miss,
  'vxlan, DirectRouting': { Type: 'vxlan', DirectRouting: true },
  'vxlan, Group': { Type: 'vxlan', Group: '239.1.1.1' },
  wireguard: { Type: 'wireguard' },
}

/** Where packets go from, and to. */
interface Path {
  readonly from: Namespace
  readonly to: Namespace
  readonly address: Ip
}

/** How much iperf3 sends, as its options say it. */
type Amount = readonly [string, string]
const FIVE_SECONDS: Amount = ['-t', '5']
const FEW_BYTES: Amount = ['-n', '1M']

const MEASURES = [
  { name: 'TCP, one stream', unit: 'Gbit/s', of: (path: Path, amount: Amount) => tcp(path, 1, amount) },
  { name: 'TCP, four streams', unit: 'Gbit/s', of: (path: Path, amount: Amount) => tcp(path, 4, amount) },
  { name: 'UDP, 64 bytes, received', unit: 'kpps', of: udp },
  { name: 'ping', unit: 'µs', of: (path: Path) => roundTrip(path) },
] as const

export const dataPath: Bench = {
  name: 'data-path',
  summary: 'TCP, small UDP packets and ping: over each backend that runs here, and host to host',
  run: async (programs, options) => {
    const samples = new Map<string, number[]>()
    for (let i = 0; i < Math.min(options.runs, 3); i++) {
      for (const [candidate, backend] of Object.entries(CANDIDATES)) {
        options.tell(`data-path: ${candidate}`)
        const figures = await onPath(programs, backend, options, async (path) => {
          const all: number[] = []
          for (const { of } of MEASURES) all.push(await of(path, options.quick ? FEW_BYTES : FIVE_SECONDS))
          return all
        })
        for (const [k, { name }] of MEASURES.entries()) {
          const key = `${name}\n${candidate}`
          samples.set(key, [...(samples.get(key) ?? []), figures[k] ?? Number.NaN])
        }
      }
    }
    const rows = MEASURES.flatMap(({ name, unit }) =>
      Object.keys(CANDIDATES).map(
        (candidate): Row => ({
          case: name,
          candidate,
          unit,
          samples: samples.get(`${name}\n${candidate}`) ?? [],
        }),
      ),
    )
    return { rows, claims: [] } satisfies Measured
  },
}

async function onPath<T>(
  programs: Programs,
  backend: BackendSettings | undefined,
  options: Options,
  work: (path: Path) => Promise<T>,
): Promise<T> {
  return Stage.with(2, options, async (stage) => {
    const [a, b] = [stage.host(0), stage.host(1)]
    if (backend === undefined) return work({ from: a, to: b, address: b.publicIp })
    return amongHosts(stage, programs, { backend, signal: options.signal }, async () => {
      for (const host of [a, b]) await attachContainer(host)
      const { subnet } = (await hostStatus(b)).lease
      const address = containerAddresses(parsePrefix(subnet)).container
      return work({ from: a.container, to: b.container, address })
    })
  })
}

/** What the receiver had, in Gbit/s. */
async function tcp(path: Path, streams: number, amount: Amount): Promise<number> {
  const { end } = await iperf(path, ['-P', `${streams}`, ...amount])
  return (end.sum_received?.bits_per_second ?? Number.NaN) / 1e9
}

/** Packets received in a second, in thousands. */
async function udp(path: Path, amount: Amount): Promise<number> {
  const { end } = await iperf(path, ['-u', '-b', '0', '-l', '64', ...amount])
  const { packets = Number.NaN, lost_packets = 0, seconds: took = 1 } = end.sum ?? {}
  return (packets - lost_packets) / took / 1000
}

/** The part of iperf3's JSON that is read. */
interface Report {
  readonly end: {
    readonly sum_received?: { readonly bits_per_second: number }
    readonly sum?: { readonly packets: number; readonly lost_packets: number; readonly seconds: number }
  }
}

async function iperf({ from, to, address }: Path, options: readonly string[]): Promise<Report> {
  const server = spawn('nsenter', [`--net=${to.path}`, 'iperf3', '-s', '-1', '--forceflush'], {
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  try {
    await untilListening(server)
    return JSON.parse(
      await run('nsenter', [`--net=${from.path}`, 'iperf3', '-J', '-c', address, ...options]),
    ) as Report
  } finally {
    if (server.exitCode === null) {
      const exit = once(server, 'exit')
      server.kill()
      await exit
    }
  }
}

async function untilListening({ stdout }: ChildProcess): Promise<void> {
  let said = ''
  if (stdout === null) throw new Error('iperf3 has no output')
  for await (const chunk of stdout.iterator({ destroyOnReturn: false }) as AsyncIterable<Buffer>) {
    said += chunk.toString()
    if (said.includes('Server listening')) break
  }
  stdout.resume()
}

/** The median of many echoes, in µs. */
async function roundTrip({ from, address }: Path): Promise<number> {
  const options = { netns: from.path, destination: parseIp(address), count: 300, interval: 3, timeout: 1000 }
  const { replies } = await ping(options)
  return 1000 * median(replies.slice(20).map(({ time }) => time))
}
