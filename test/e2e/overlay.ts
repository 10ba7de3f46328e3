/** A lab with real agents and real traffic, for the tests that look at the agent from outside. */

import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdir, rename } from 'node:fs/promises'
import { dirname } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { attachContainer, buildUnderlay } from '../../src/lab/build.ts'
import { bridge, ip } from '../../src/lab/command.ts'
import { labDown, onCleanGround } from '../../src/lab/lab.ts'
import { ping } from '../../src/lab/ping.ts'
import { putConfig, seedRegistry } from '../../src/lab/registry.ts'
import {
  containerAddresses,
  type Lab,
  type LabFamily,
  type LabHost,
  type LabRegistry,
  planLab,
} from '../../src/lab/topology.ts'
import { remains } from '../tweed.ts'
import { Agent, TWEED } from './agent.ts'

/** The lab, and the agent that was last started on each host. */
export class Overlay implements AsyncDisposable {
  readonly lab: Lab
  readonly #agents = new Map<LabHost, Agent>()

  private constructor(lab: Lab) {
    this.lab = lab
  }

  /** The machines of a lab, and its registry when there is a config; no agents. */
  static async build(
    hosts: number,
    config: string | undefined,
    registry: LabRegistry = 'sqlite',
    family: LabFamily = 'inet',
  ): Promise<Overlay> {
    const lab = planLab(`twe${process.pid}n${names.next().value}`, hosts, registry, family)
    await onCleanGround(
      lab,
      () => undefined,
      async () => {
        await buildUnderlay(lab)
        for (const { subnetFile } of lab.hosts) await mkdir(dirname(subnetFile))
        if (config !== undefined) await seedRegistry(lab, config, [TWEED])
      },
    )
    return new Overlay(lab)
  }

  /** Two hosts with agents that know each other, and a container on each. */
  static async connect(config: string, registry?: LabRegistry, family?: LabFamily): Promise<Overlay> {
    const overlay = await Overlay.build(2, config, registry, family)
    try {
      const agents = overlay.hosts.map((host) => overlay.start(host))
      for (const agent of agents) {
        await agent.untilReady()
        for (const { host } of agents) {
          if (host !== agent.host) await agent.untilPeer(host.subnet, 'in sync')
        }
        await attachContainer(agent.host)
      }
      return overlay
    } catch (error) {
      await overlay[Symbol.asyncDispose]()
      throw error
    }
  }

  get hosts(): readonly LabHost[] {
    return this.lab.hosts
  }

  host(index: number): LabHost {
    const host = this.hosts[index]
    assert.ok(host !== undefined)
    return host
  }

  /** Does not wait for it. */
  start(host: LabHost, ...flags: string[]): Agent {
    return this.startInside(host, [], ...flags)
  }

  /** @param inside As of `Agent`. */
  startInside(host: LabHost, inside: readonly string[], ...flags: string[]): Agent {
    const agent = new Agent(this.lab, host, flags, inside)
    this.#agents.set(host, agent)
    return agent
  }

  /** Of each host, in their order. */
  get agents(): Agent[] {
    return this.hosts.flatMap((host) => this.#agents.get(host) ?? [])
  }

  agent(index: number): Agent {
    const agent = this.#agents.get(this.host(index))
    assert.ok(agent !== undefined)
    return agent
  }

  async killAgents(): Promise<void> {
    for (const agent of this.agents) await agent.end('SIGKILL')
  }

  /** Runs SQL on the registry as another program would. */
  sql(words: string, ...values: (string | number)[]): void {
    sql(this.lab.registryPath, words, ...values)
  }

  /** Writes an entry that never expires. */
  writeLease(key: string, value: string): void {
    this.sql('INSERT INTO leases (key, value) VALUES (?, ?)', key, value)
  }

  removeLease(key: string): void {
    this.sql('DELETE FROM leases WHERE key = ?', key)
  }

  /** Until the function that it gives is called. */
  async moveRegistryAway(): Promise<() => Promise<void>> {
    const path = this.lab.registryPath
    await rename(path, `${path}.away`)
    return () => rename(`${path}.away`, path)
  }

  /** By another process, until the function that it gives is called. */
  async lockRegistry(): Promise<() => Promise<void>> {
    const program = `const { DatabaseSync } = require('node:sqlite')
      new DatabaseSync(process.argv[1]).exec('BEGIN EXCLUSIVE'); console.log('locked'); setInterval(() => {}, 1000)`
    const words = ['--eval', program, this.lab.registryPath]
    const locker = spawn(process.execPath, words, { stdio: ['ignore', 'pipe', 'ignore'] })
    await once(locker.stdout, 'data')
    return async () => {
      locker.kill('SIGKILL')
      await once(locker, 'exit')
    }
  }

  /** As an operator does, while agents run. */
  putConfig(config: string): Promise<void> {
    return putConfig(this.lab, config, [TWEED])
  }

  /** What tweed has in the kernel of each host. */
  pictures(): Promise<string[]> {
    return Promise.all(this.hosts.map(picture))
  }

  /** Does its work while c1 pings c2, and not one packet may be lost. */
  async undisturbed(work: () => Promise<void>): Promise<void> {
    const stop = new AbortController()
    const [a, b] = [this.host(0), this.host(1)]
    const { container: destination } = containerAddresses(b.subnet)
    const options = { netns: a.container.path, destination, interval: 10, timeout: 3000 }
    const pinging = ping({ ...options, signal: stop.signal })
    try {
      await work()
    } finally {
      stop.abort()
      await pinging
    }
    const { sent, lost, errors } = await pinging
    assert.deepEqual({ lost, errors }, { lost: [], errors: [] }, `of ${sent} packets`)
    assert.ok(sent > 1)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await labDown(this.lab.name)
    assert.deepEqual(await remains(this.lab.name), [])
  }
}

/** A program that is not tweed writes into the file of a registry. */
export function sql(path: string, words: string, ...values: (string | number)[]): void {
  const database = new DatabaseSync(path, { timeout: 5000 })
  try {
    database.prepare(words).run(...values)
  } finally {
    database.close()
  }
}

/** A lease's value as a vxlan host writes it. */
export function vxlanValue(publicIp: string, mac: unknown): string {
  const data = { VNI: 1, VtepMAC: mac }
  return JSON.stringify({ PublicIP: publicIp, PublicIPv6: null, BackendType: 'vxlan', BackendData: data })
}

/** A peer that is nothing but its lease: `10.10.N.0-24`, which stands for 192.168.1.N. */
export function fakePeer(n: number): {
  readonly key: string
  readonly subnet: string
  readonly value: string
} {
  const mac = `02:00:00:00:00:${n.toString(16).padStart(2, '0')}`
  return { key: `10.10.${n}.0-24`, subnet: `10.10.${n}.0/24`, value: vxlanValue(`192.168.1.${n}`, mac) }
}

/** All that tweed may change on a host, as `ip` and `bridge` print it. Two equal pictures are the same state. */
export async function picture({ namespace }: LabHost): Promise<string> {
  const commands = [
    ip(namespace, '-d link show type vxlan'),
    ip(namespace, '-4 address show'),
    ip(namespace, '-4 route show table all'),
    ip(namespace, 'rule show'),
    ip(namespace, 'nexthop show'),
    // Of a link that is not there, no picture.
    ip(namespace, 'neigh show dev flannel.1').catch(() => ''),
    bridge(namespace, 'fdb show dev flannel.1').catch(() => ''),
  ]
  const lines = (await Promise.all(commands)).flatMap((output) => output.trimEnd().split('\n').toSorted())
  return lines.join('\n')
}

const names = (function* () {
  for (let i = 0; ; i++) yield i
})()
