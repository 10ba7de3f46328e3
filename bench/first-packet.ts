/**
 * What an L3 miss adds to the first packet for an address: the round trip of the first echo, less the median of those that
 * follow. The way back is known before, so that it is one miss on one host. The measuring process sends and then waits in
 * the receiving system call: its own event loop is no part of it. Beside it programs that answer every miss and know nothing: the
 * floor in C, and what that is on Node.
 */

import { type ChildProcess, spawn } from 'node:child_process'
import { randomInt } from 'node:crypto'
import { once } from 'node:events'
import { setTimeout as sleep } from 'node:timers/promises'
import { type Ip, ipBytes, ipFromNumber, ipToNumber } from '../src/address/ip.ts'
import { parsePrefix, prefixBase } from '../src/address/prefix.ts'
import { hostStatus } from '../src/lab/agent.ts'
import { ip } from '../src/lab/command.ts'
import { decodeEchoReply, encodeEchoRequest } from '../src/lab/echo.ts'
import type { LabHost } from '../src/lab/topology.ts'
import { openIcmp } from '../src/native.ts'
import type { Bench, Options } from './bench.ts'
import { amongHosts, settle } from './crowd.ts'
import { type Measured, median, percentile } from './measure.ts'
import { LINK, MODES } from './network.ts'
import type { Programs } from './programs.ts'
import { Stage } from './stage.ts'

const FOLLOWING = 5
/** Milliseconds. */
const TIMEOUT = 1000
const PAUSE = 10
const SLOT = 2048

export const firstPacket: Bench = {
  name: 'first-packet',
  summary: 'what an L3 miss adds to the first packet for an address',
  run: (programs, options) =>
    Stage.with(2, options, async (stage): Promise<Measured> => {
      const extras = await betweenTwoHosts(stage, programs, options)
      const { tweed } = extras
      const name = 'extra time of the first packet'
      const rows = Object.entries(extras).flatMap(([candidate, extra]) => [
        { case: name, candidate, unit: 'ms', samples: extra },
        { case: `${name}, p99`, candidate, unit: 'ms', samples: [percentile(extra, 0.99)] },
      ])
      return {
        rows,
        claims: [
          { what: `${name}, p50, ms`, measured: percentile(tweed, 0.5), bound: 0.25 },
          { what: `${name}, p99, ms`, measured: percentile(tweed, 0.99), bound: 0.6 },
        ],
      }
    }),
}

/**
 * The second of two hosts answers for every address of its subnet. First the agent answers the misses of the first, then, in
 * its place, those that know nothing.
 */
function betweenTwoHosts(
  stage: Stage,
  programs: Programs,
  { signal, quick }: Options,
): Promise<{ readonly tweed: number[]; readonly 'bare Node': number[]; readonly floor: number[] }> {
  return amongHosts(stage, programs, { backend: MODES.l3miss, signal }, async ([agent]) => {
    const [a, b] = [stage.host(0), stage.host(1)]
    const { lease, mac } = await hostStatus(b)
    const back = prefixBase(parsePrefix((await hostStatus(a)).lease.subnet))
    await ip(b.namespace, `route add local ${lease.subnet} dev lo`)
    roundTrip(b, back, 1)
    // Until what the starts left behind is collected.
    await settle({ quick })
    const addresses = quick ? 20 : 250
    const tweed = await measureAll(a, lease.subnet, addresses)
    await agent?.stop()
    const answeredBy = async (program: readonly string[]): Promise<number[]> => {
      await ip(a.namespace, `neigh flush dev ${LINK} nud permanent`)
      const answer = await startAnswer(a, [...program, LINK, mac])
      try {
        return await measureAll(a, lease.subnet, addresses)
      } finally {
        answer.kill()
      }
    }
    const bare = await answeredBy(programs.bareAnswer)
    return { tweed, 'bare Node': bare, floor: await answeredBy([programs.answer]) }
  })
}

async function startAnswer(host: LabHost, words: readonly string[]): Promise<ChildProcess> {
  const child = spawn('nsenter', [`--net=${host.path}`, ...words], { stdio: ['ignore', 'pipe', 'inherit'] })
  await once(child.stdout, 'data')
  return child
}

/** For that many addresses of a subnet. */
async function measureAll(source: LabHost, subnet: string, addresses: number): Promise<number[]> {
  const extra: number[] = []
  const first = ipToNumber(prefixBase(parsePrefix(subnet))) + 1n
  // The first address warms up.
  for (let i = 0; i <= addresses; i++) {
    const sample = measure(source, ipFromNumber(first + BigInt(i), 'inet'))
    if (i > 0) extra.push(sample)
    await sleep(PAUSE)
  }
  return extra
}

/** Milliseconds. */
function measure(source: LabHost, destination: Ip): number {
  const [first = Number.NaN, ...following] = roundTrip(source, destination, 1 + FOLLOWING)
  return first - median(following)
}

/** Of each echo, in ms. @throws when one is not answered. */
function roundTrip(source: LabHost, destination: Ip, count: number): number[] {
  const socket = openIcmp(source.path, ipBytes(destination))
  const identifier = randomInt(0x10000)
  const slots = new Uint8Array(SLOT)
  const lengths = new Uint32Array(1)
  try {
    return Array.from({ length: count }, (_, sequence) => {
      const request = encodeEchoRequest('inet', identifier, sequence, 56)
      const began = process.hrtime.bigint()
      socket.send(request)
      for (;;) {
        const received = socket.receive(slots, SLOT, lengths, TIMEOUT)
        const at = process.hrtime.bigint()
        if (received !== 1) throw new Error(`${destination} does not answer`)
        const reply = decodeEchoReply('inet', slots.subarray(0, lengths[0]))
        if (reply?.identifier === identifier && reply.sequence === sequence) return Number(at - began) / 1e6
      }
    })
  } finally {
    socket.close()
  }
}
