/** An agent process, as who runs it sees it: its exit status, its log, and what it serves. */

import assert from 'node:assert/strict'
import { type ChildProcess, spawn } from 'node:child_process'
import { get } from 'node:http'
import { text } from 'node:stream/consumers'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { hostStatus, publicIpFlags } from '../../src/lab/agent.ts'
import { registryFlags } from '../../src/lab/registry.ts'
import type { Lab, LabHost } from '../../src/lab/topology.ts'
import { statusSocketPath } from '../../src/status/client.ts'
import type { PeerStatus, Status } from '../../src/status/status.ts'

export const TWEED = fileURLToPath(new URL('../../bin/tweed', import.meta.url))
const PATIENCE = process.env['TWEED_TEST_SLOW'] === undefined ? 20_000 : 120_000

/** A line of an agent's log. */
export type Line = Readonly<Record<string, unknown>> & { readonly level: string; readonly msg: string }

/** One agent process in the namespace of a host. */
export class Agent {
  readonly host: LabHost
  readonly #child: ChildProcess
  #stderr = ''
  #exit: { readonly code: number | null } | undefined

  /** @param inside Words before the program that runs it: `unshare --mount`. */
  constructor(lab: Lab, host: LabHost, flags: readonly string[], inside: readonly string[] = []) {
    this.host = host
    const words = [
      `--net=${host.path}`,
      ...inside,
      TWEED,
      'agent',
      ...registryFlags(lab),
      ...publicIpFlags(host),
      `--subnet-file=${host.subnetFile}`,
      ...flags,
    ]
    const child = spawn('nsenter', words, { stdio: ['ignore', 'ignore', 'pipe'] })
    child.stderr.setEncoding('utf8').on('data', (chunk: string) => {
      this.#stderr += chunk
    })
    child.once('close', (code) => {
      this.#exit = { code }
    })
    this.#child = child
  }

  get stderr(): string {
    return this.#stderr
  }

  /** The whole lines so far. */
  get log(): Line[] {
    return this.#stderr
      .split('\n')
      .slice(0, -1)
      .map((line) => JSON.parse(line) as Line)
  }

  /** The lines whose message matches; `from` is a length that the log had. */
  said(message: RegExp, from = 0): Line[] {
    return this.log.slice(from).filter(({ msg }) => message.test(msg))
  }

  async untilSaid(message: RegExp, from = 0): Promise<Line> {
    return this.#until(`said ${message}`, () => this.said(message, from)[0])
  }

  async end(signal: 'SIGTERM' | 'SIGKILL'): Promise<number | null> {
    this.#child.kill(signal)
    return this.untilEnded()
  }

  /** The exit status; null when a signal ended it. */
  async untilEnded(): Promise<number | null> {
    return (await this.#until('ended', () => this.#exit)).code
  }

  status(): Promise<Status> {
    return hostStatus(this.host)
  }

  /** The status once it is as wanted. */
  untilStatus(what: string, matches: (status: Status) => boolean): Promise<Status> {
    return this.#until(what, async () => {
      const status = await this.status().catch(() => undefined)
      return status !== undefined && matches(status) ? status : undefined
    })
  }

  untilReady(): Promise<Status> {
    return this.untilStatus('ready', ({ ready }) => ready)
  }

  /** The peer with that subnet, of either family, or registry key, once it is in that state. */
  async untilPeer(subnet: string, state: PeerStatus['state']): Promise<PeerStatus> {
    const find = ({ peers }: Status) => peers.find((peer) => isOf(peer, subnet) && peer.state === state)
    const found = find(
      await this.untilStatus(`has ${subnet} ${state}`, (status) => find(status) !== undefined),
    )
    assert.ok(found !== undefined)
    return found
  }

  async untilPeerGone(subnet: string): Promise<void> {
    const isGone = ({ peers }: Status): boolean => peers.every((peer) => !isOf(peer, subnet))
    await this.untilStatus(`has no ${subnet}`, isGone)
  }

  /** What it serves on its socket: `/readyz`. */
  async get(path: string): Promise<{ readonly code: number | undefined; readonly body: string }> {
    return new Promise((resolve, reject) => {
      get({ socketPath: statusSocketPath(this.host.subnetFile), path, agent: false }, (response) => {
        const { statusCode: code } = response
        text(response).then((body) => resolve({ code, body }), reject)
      }).once('error', reject)
    })
  }

  /** The first result that is not undefined. */
  async #until<T>(what: string, probe: () => Promise<T | undefined> | T | undefined): Promise<T> {
    const deadline = performance.now() + PATIENCE
    for (;;) {
      const hasEnded = this.#exit !== undefined
      const result = await probe()
      if (result !== undefined) return result
      const why = hasEnded ? 'it has ended' : performance.now() > deadline && `${PATIENCE / 1000} s went by`
      if (why !== false) assert.fail(`${this.host.name} not ${what}: ${why}\n${this.#stderr}`)
      await sleep(20)
    }
  }
}

function isOf(peer: PeerStatus, subnet: string): boolean {
  return peer.subnet === subnet || peer.ipv6Subnet === subnet
}
