/**
 * The agent: joins the network (config, host facts, lease), then follows three things until it is told to stop: the
 * registry's leases, which become shares of the desired state; the kernel, which is brought to that state turn by turn;
 * and its own lease, which it keeps. Stopping leaves the data plane as it is.
 */

import { setTimeout as sleep } from 'node:timers/promises'
import type { HostFacts } from './backend/backend.ts'
import { createBackend } from './backend/table.ts'
import { ConfigError, parseNetworkConfig } from './config/network-config.ts'
import { readSubnetFile, writeSubnetFile } from './config/subnet-file.ts'
import { type InterfaceChoice, readInterfaces } from './kernel/host.ts'
import { Reconciler } from './kernel/reconcile.ts'
import { Admission } from './lease/admission.ts'
import { Grace } from './lease/grace.ts'
import type { Lease, LeaseKey } from './lease/lease.ts'
import { type LeaseRegistry, type LeaseSnapshot, RegistryError } from './lease/registry.ts'
import type { Scope, Share } from './state.ts'
import type { Journal, Membership } from './status/journal.ts'

export interface AgentOptions {
  readonly registry: LeaseRegistry
  readonly interface: InterfaceChoice
  readonly subnetFile: string
  /** How long leases are kept that a replaced registry lacks. Milliseconds. */
  readonly grace: number
}

/** Our lease is gone and its subnet is somebody else's: containers here have addresses that are no longer ours. */
export class LeaseLost extends Error {
  override readonly name = 'LeaseLost'

  constructor({ key }: Lease, why: string) {
    super(`the lease of ${key} was lost and is not to be had again${why}`)
  }
}

/** How often what is not there yet is looked for. Milliseconds. */
const RETRY_INTERVAL = 1000

/** Runs until the signal. @throws {LeaseLost} {@link HostError} {@link RegistryError} what only an operator can mend. */
export async function runAgent(options: AgentOptions, journal: Journal, signal: AbortSignal): Promise<void> {
  const membership = await join(options, journal, signal)
  if (membership === undefined) return
  const failed = new AbortController()
  const network = new Network(options, membership, journal, AbortSignal.any([signal, failed.signal]))
  const tasks = [
    network.followLeases(),
    network.followKernel(),
    network.holdLease(),
    network.writeSubnetFile(),
  ]
  const results = await Promise.allSettled(
    tasks.map((task) =>
      task.catch((error: unknown) => {
        failed.abort()
        throw error
      }),
    ),
  )
  const failure = results.find((result) => result.status === 'rejected')
  if (failure?.reason instanceof LeaseLost) await withdraw(membership.backend.scope)
  if (failure !== undefined) throw failure.reason
}

/** Waits for what the network needs; undefined when the signal comes first. */
async function join(
  options: AgentOptions,
  journal: Journal,
  signal: AbortSignal,
): Promise<Membership | undefined> {
  const { registry } = options
  while (!signal.aborted) {
    try {
      const text = await registry.readConfig(signal)
      if (text === undefined) {
        journal.waiting(
          `there is no network config in ${registry.name} yet: write one with \`tweed config put\``,
        )
      } else {
        return await acquire(options, text, journal, signal)
      }
    } catch (error) {
      if (signal.aborted) return undefined
      const passing =
        error instanceof ConfigError || (error instanceof RegistryError && error.code === 'unavailable')
      if (!passing) throw error
      journal.waiting(error.message)
    }
    await pause(signal)
  }
  return undefined
}

async function acquire(
  options: AgentOptions,
  configText: string,
  journal: Journal,
  signal: AbortSignal,
): Promise<Membership> {
  const config = parseNetworkConfig(configText)
  const host = await readHost(options.interface)
  const backend = createBackend(config, host)
  const previous = await readSubnetFile(options.subnetFile)
  const { publicIps } = host
  const attributes = { publicIps, backendType: backend.type, backendData: backend.advertised }
  const lease = await options.registry.acquire({ config, attributes, previous }, signal)
  const membership = { config, configText, host, backend, lease }
  journal.joined(membership)
  return membership
}

async function readHost(choice: InterfaceChoice): Promise<HostFacts> {
  const { external, links } = await readInterfaces(choice)
  const { name, index, mtu } = external
  return {
    external: { name, index, mtu, addresses: { inet: external.address } },
    publicIps: { inet: external.publicIp },
    links,
  }
}

/** Takes everything of ours out of the kernel: a turn whose plan is empty. */
async function withdraw(scope: Scope): Promise<void> {
  const reconciler = await Reconciler.open({ scope })
  try {
    await reconciler.turn()
  } finally {
    reconciler.close()
  }
}

/** The agent on the network: the three things that it follows, and what they share. */
class Network {
  readonly #options: AgentOptions
  readonly #membership: Membership
  readonly #journal: Journal
  readonly #signal: AbortSignal
  readonly #reconciler: Promise<Reconciler>
  readonly #admission: Admission
  readonly #grace: Grace
  readonly #shares = new Map<LeaseKey, Share>()
  /** Resolves with the first complete snapshot: before it nothing is pruned, because no turn is taken. */
  readonly #known = Promise.withResolvers<void>()
  /** Resolves with the first turn; false when there is none any more. */
  readonly #programmed = Promise.withResolvers<boolean>()
  #graceTimer: NodeJS.Timeout | undefined

  constructor(options: AgentOptions, membership: Membership, journal: Journal, signal: AbortSignal) {
    const { backend, config, lease } = membership
    this.#options = options
    this.#membership = membership
    this.#journal = journal
    this.#signal = signal
    this.#reconciler = Reconciler.open({ scope: backend.scope })
    this.#grace = new Grace(options.grace)
    this.#admission = new Admission({
      ranges: config.ranges,
      self: lease,
      backendType: backend.type,
      judge: (peer) => backend.judge(peer),
    })
  }

  async followLeases(): Promise<void> {
    const reconciler = await this.#reconciler
    const { backend, lease } = this.#membership
    reconciler.exchange([], [backend.own(lease)])
    try {
      for await (const event of this.#options.registry.watch(this.#signal)) {
        if (event.kind === 'unavailable') {
          this.#grace.unavailable(Date.now())
          this.#journal.registryUnavailable(event.reason)
          continue
        }
        this.#journal.registryAvailable()
        this.#checkConfig(event.config)
        this.#takeSnapshot(event, reconciler)
        this.#known.resolve()
      }
    } finally {
      clearTimeout(this.#graceTimer)
      this.#known.resolve()
    }
  }

  async followKernel(): Promise<void> {
    try {
      await this.#known.promise
      const reconciler = await this.#reconciler
      for await (const report of reconciler.run(this.#signal)) {
        this.#journal.turn(report, reconciler.failures, reconciler.overruns)
        this.#programmed.resolve(true)
      }
    } finally {
      this.#programmed.resolve(false)
    }
  }

  /** Tells Docker and CNI plugins once there is a network; tries until the file can be written. */
  async writeSubnetFile(): Promise<void> {
    if (!(await this.#programmed.promise)) return
    const { subnetFile } = this.#options
    while (!this.#signal.aborted) {
      const fault = await this.#tryWriteSubnetFile()
      this.#journal.subnetFile(subnetFile, fault)
      if (fault === '') return
      await pause(this.#signal)
    }
  }

  /** Keeps the lease. One that is lost is taken again if its subnet is free; all that is known stays in place. */
  async holdLease(): Promise<void> {
    const { registry } = this.#options
    let { lease } = this.#membership
    while (!this.#signal.aborted) {
      if ((await registry.hold(lease, this.#signal)) === 'released') return
      this.#journal.leaseLost(lease)
      const again = await this.#acquireAgain(lease)
      if (again === undefined) return
      if (again.key !== lease.key) throw new LeaseLost(lease, `; the registry gave ${again.key}`)
      lease = again
      this.#journal.joined({ ...this.#membership, lease })
    }
  }

  async #acquireAgain(lost: Lease): Promise<Lease | undefined> {
    const { config } = this.#membership
    const { subnets: previous, ...attributes } = lost
    while (!this.#signal.aborted) {
      try {
        return await this.#options.registry.acquire({ config, attributes, previous }, this.#signal)
      } catch (error) {
        if (this.#signal.aborted) break
        if (!(error instanceof RegistryError)) throw error
        if (error.code !== 'unavailable') throw new LeaseLost(lost, `: ${error.message}`)
        this.#journal.registryUnavailable(error.message)
        await pause(this.#signal)
      }
    }
    return undefined
  }

  #takeSnapshot(snapshot: LeaseSnapshot, reconciler: Reconciler): void {
    const held = this.#grace.held
    const known = this.#grace.take(snapshot, Date.now())
    if (this.#grace.held > held) this.#journal.leasesHeld(this.#grace.held, this.#options.grace / 1000)
    this.#admit({ ...snapshot, ...known }, reconciler)
    clearTimeout(this.#graceTimer)
    if (this.#grace.deadline === undefined) return
    const expire = (): void => this.#admit({ ...snapshot, ...this.#grace.expire(Date.now()) }, reconciler)
    this.#graceTimer = setTimeout(expire, this.#grace.deadline - Date.now())
  }

  /** Leases that changed become shares that are exchanged. */
  #admit(snapshot: LeaseSnapshot, reconciler: Reconciler): void {
    const changes = this.#admission.update(snapshot)
    const removed: Share[] = []
    const added: Share[] = []
    for (const [key, outcome] of changes) {
      const old = this.#shares.get(key)
      const share = outcome?.kind === 'admitted' ? this.#membership.backend.peer(outcome.lease) : undefined
      if (old !== undefined) removed.push(old)
      if (share !== undefined) added.push(share)
      if (share === undefined) this.#shares.delete(key)
      else this.#shares.set(key, share)
      this.#journal.share(key, share)
    }
    this.#journal.snapshot(snapshot, changes)
    reconciler.exchange(removed, added)
  }

  /** What went wrong; empty when nothing did. */
  async #tryWriteSubnetFile(): Promise<string> {
    const { backend, config, lease } = this.#membership
    const networks = config.ranges.inet === undefined ? {} : { inet: config.ranges.inet.network }
    try {
      await writeSubnetFile(this.#options.subnetFile, {
        networks,
        subnets: lease.subnets,
        mtu: backend.mtu,
        ipMasquerade: false,
      })
      return ''
    } catch (error) {
      return error instanceof Error ? error.message : String(error)
    }
  }

  #checkConfig(text: string | undefined): void {
    this.#journal.configDiffers(differs(text, this.#membership.configText))
  }
}

/** What is to be said of a config in the registry that is not the one in use. */
function differs(text: string | undefined, inUse: string): string {
  if (text === undefined)
    return 'the registry has no network config any more; the agent goes on with the one it has'
  if (text === inUse) return ''
  try {
    parseNetworkConfig(text)
    return 'the network config in the registry changed; restart the agent to use it'
  } catch (error) {
    if (error instanceof ConfigError)
      return `the network config in the registry cannot be used: ${error.message}`
    throw error
  }
}

async function pause(signal: AbortSignal): Promise<void> {
  await sleep(RETRY_INTERVAL, undefined, { signal }).catch(() => undefined)
}
