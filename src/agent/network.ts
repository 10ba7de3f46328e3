/** The agent on a network: what it follows until it is told to stop, or until what it joined with has changed. */

import { isDeepStrictEqual } from 'node:util'
import { familiesOf, type HostFacts, NOTHING } from '../backend/backend.ts'
import { checkBackend } from '../backend/table.ts'
import { ConfigError, parseNetworkConfig } from '../config/network-config.ts'
import { writeSubnetFile } from '../config/subnet-file.ts'
import { Reconciler } from '../kernel/reconcile.ts'
import { Admission, byAge, type OutcomeChange } from '../lease/admission.ts'
import { isCompatible } from '../lease/allocate.ts'
import type { Grace } from '../lease/grace.ts'
import type { Outcome } from '../lease/judge.ts'
import type { Lease, LeaseKey } from '../lease/lease.ts'
import { type LeaseSnapshot, RegistryError } from '../lease/registry.ts'
import { keep } from '../masquerade/firewall.ts'
import { openFirewall } from '../masquerade/mode.ts'
import type { Share } from '../state.ts'
import type { Journal, Membership } from '../status/journal.ts'
import { followHost } from './host.ts'
import { type AgentOptions, pause } from './join.ts'
import { blackholes, networksOf, overlaysOf } from './overlay.ts'

/** Our lease is gone and its subnet is somebody else's: containers here have addresses that are no longer ours. */
export class LeaseLost extends Error {
  override readonly name = 'LeaseLost'

  constructor({ key }: Lease, why: string) {
    super(`the lease of ${key} was lost and is not to be had again${why}`)
  }
}

export class Network {
  readonly #options: AgentOptions
  readonly #membership: Membership
  readonly #journal: Journal
  readonly #signal: AbortSignal
  readonly #reconciler: Promise<Reconciler>
  readonly #admission: Admission
  readonly #grace: Grace
  /** True with the first complete snapshot: before it nothing is pruned, because no turn is taken. False: none came. */
  readonly #known = Promise.withResolvers<boolean>()
  /** Resolves with the first turn; false when there is none any more. */
  readonly #programmed = Promise.withResolvers<boolean>()
  /** Resolves with the first look at the packet filter, or when there is none any more. */
  readonly #filtered = Promise.withResolvers<void>()
  /** Aborted when what the agent joined with has changed: it is to join again. */
  readonly #changed = new AbortController()
  #graceTimer: NodeJS.Timeout | undefined

  /** @param signal Ends everything. @param grace Outlives the membership: what it holds is held through a change. */
  constructor(
    options: AgentOptions,
    membership: Membership,
    grace: Grace,
    journal: Journal,
    signal: AbortSignal,
  ) {
    const { backend, config, lease } = membership
    this.#options = options
    this.#membership = membership
    this.#journal = journal
    this.#signal = AbortSignal.any([signal, this.#changed.signal])
    this.#reconciler = Reconciler.open({ scope: backend.scope })
    this.#grace = grace
    this.#admission = new Admission({
      ranges: config.ranges,
      self: lease,
      backendType: backend.leaseType,
      judge: (peer) => backend.judge(peer),
    })
  }

  /** Follows all of it until the signal, or a change. @throws {LeaseLost} and what no task expected. */
  async follow(): Promise<void> {
    const tasks = [
      this.#followLeases(),
      this.#followKernel(),
      this.#followCompanion(),
      this.#followHost(),
      this.#followFirewall(),
      this.#holdLease(),
      this.#writeSubnetFile(),
    ]
    const results = await Promise.allSettled(
      tasks.map((task) =>
        task.catch((error: unknown) => {
          this.#changed.abort()
          throw error
        }),
      ),
    )
    const failure = results.find((result) => result.status === 'rejected')
    if (failure !== undefined) throw failure.reason
  }

  async #followLeases(): Promise<void> {
    const { backend, lease } = this.#membership
    try {
      const reconciler = await this.#reconciler
      const shares = [backend.own(lease)]
      if (this.#options.blackhole) shares.push(blackholes(lease))
      reconciler.exchange([], shares)
      for await (const event of this.#options.registry.watch(this.#signal)) {
        if (event.kind === 'unavailable') {
          this.#grace.unavailable(Date.now())
          this.#journal.registryUnavailable(event.reason)
          continue
        }
        this.#journal.registryAvailable()
        this.#checkConfig(event.config)
        this.#takeSnapshot(event, reconciler)
        this.#known.resolve(true)
      }
    } finally {
      clearTimeout(this.#graceTimer)
      this.#known.resolve(false)
    }
  }

  async #followKernel(): Promise<void> {
    try {
      const isKnown = await this.#known.promise
      const reconciler = await this.#reconciler
      if (!isKnown) return reconciler.close()
      for await (const report of reconciler.run(this.#signal)) {
        this.#journal.turn(report, reconciler.failures, reconciler.overruns)
        this.#programmed.resolve(true)
      }
    } finally {
      this.#programmed.resolve(false)
    }
  }

  /** What the backend does beside the kernel's tables. Nothing is exchanged before the first snapshot. */
  async #followCompanion(): Promise<void> {
    const { companion } = this.#membership.backend
    if (companion === undefined) return
    for await (const step of companion.run(this.#signal)) this.#journal.step(step, companion.failures)
  }

  /** The external interface may get another address or MTU, and may go and come back. */
  async #followHost(): Promise<void> {
    const { host, wantedIps, backend, config } = this.#membership
    const question = {
      choice: { ...this.#options.interface, publicIps: wantedIps },
      families: familiesOf(config.ranges),
      underlay: backend.needsUnderlay,
    }
    for await (const event of followHost(question, host, this.#signal)) {
      this.#journal.host(event.kind === 'unusable' ? event.why : '')
      if (event.kind === 'changed') this.#change(event.why)
    }
  }

  /** Without rules to keep, the programs of the packet filter need not be there. */
  async #followFirewall(): Promise<void> {
    const { masquerade, forward, randomFully, interval } = this.#options.firewall
    const { config, lease } = this.#membership
    const networks = overlaysOf(config, lease)
    try {
      if (!masquerade && !forward) return
      const opened = await openFirewall(config.enableNftables ? 'nftables' : 'iptables', {})
      const rules = { networks, masquerade, forward, randomFully }
      for await (const report of keep({ ...opened, rules, interval }, this.#signal)) {
        this.#journal.firewall(report)
        this.#filtered.resolve()
      }
    } finally {
      this.#filtered.resolve()
    }
  }

  /** Tells Docker and CNI plugins once there is a network; tries until the file can be written. */
  async #writeSubnetFile(): Promise<void> {
    await this.#filtered.promise
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
  async #holdLease(): Promise<void> {
    const { registry } = this.#options
    let { lease } = this.#membership
    while (!this.#signal.aborted) {
      if ((await registry.hold(lease, this.#signal, this.#programmed.promise)) === 'released') return
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
        return await this.#options.registry.acquire(
          { config, attributes, previous, current: lost },
          this.#signal,
        )
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

  /** Leases that changed become shares that are exchanged. A share is a function of its lease: none is kept. */
  #admit(snapshot: LeaseSnapshot, reconciler: Reconciler): void {
    reconciler.planWaiting()
    if (this.#admission.outcomes.size === 0) return this.#begin(snapshot, reconciler)
    const changes = this.#admission.update(snapshot)
    const { backend } = this.#membership
    const removed: Lease[] = []
    const added: Lease[] = []
    for (const { before, after } of changes) {
      if (before?.kind === 'admitted') removed.push(before.lease)
      if (after?.kind === 'admitted') added.push(after.lease)
    }
    this.#journal.snapshot(snapshot, this.#admission.outcomes, changes)
    const share = (lease: Lease): Share => backend.peer(lease)
    if (removed.length === 0) reconciler.add(added, share)
    else reconciler.exchange(removed.map(share), added.map(share))
    backend.companion?.exchange(removed, added)
  }

  /** The first leases are judged and planned while the kernel works on those before: on the oldest first. */
  #begin(snapshot: LeaseSnapshot, reconciler: Reconciler): void {
    const { backend } = this.#membership
    const { outcomes } = this.#admission
    const leases = [...snapshot.leases.values()].sort(byAge)
    const tellAll = (): void => {
      this.#journal.snapshot(snapshot, outcomes, firstOf(outcomes))
      const { companion } = backend
      if (companion === undefined) return
      const added = [...outcomes.values()].flatMap((each) => (each.kind === 'admitted' ? [each.lease] : []))
      companion.exchange([], added)
    }
    reconciler.add(leases, (lease) => {
      const outcome = this.#admission.admit(lease)
      const share = outcome.kind === 'admitted' ? backend.peer(outcome.lease) : NOTHING
      if (outcomes.size === leases.length) tellAll()
      return share
    })
    if (leases.length === 0) tellAll()
  }

  /** What went wrong; empty when nothing did. */
  async #tryWriteSubnetFile(): Promise<string> {
    const { backend, config, lease } = this.#membership
    try {
      await writeSubnetFile(this.#options.subnetFile, {
        networks: networksOf(config),
        subnets: lease.subnets,
        mtu: backend.mtu,
        ipMasquerade: this.#options.firewall.masquerade,
      })
      return ''
    } catch (error) {
      return error instanceof Error ? error.message : String(error)
    }
  }

  /** A config that our lease fits is taken up at once; any other is said, and the agent goes on with the one it has. */
  #checkConfig(text: string | undefined): void {
    const { configText, host, lease } = this.#membership
    const { givesSubnets } = this.#options.registry
    const fault = text === configText ? '' : configFault(text, host, lease, givesSubnets)
    this.#journal.configDiffers(fault)
    if (text !== configText && fault === '') this.#change('the network config changed')
  }

  #change(why: string): void {
    this.#journal.changing(why)
    this.#changed.abort()
  }
}

/** Outcomes that there were none before. */
function* firstOf(outcomes: ReadonlyMap<LeaseKey, Outcome>): Generator<OutcomeChange> {
  for (const [key, after] of outcomes) yield { key, before: undefined, after }
}

/** Why the agent cannot go over to the config; empty when it can. */
function configFault(
  text: string | undefined,
  host: HostFacts,
  { subnets, key }: Lease,
  givesSubnets: boolean | undefined,
): string {
  if (text === undefined) {
    return 'the registry has no network config any more; the agent goes on with the one it has'
  }
  try {
    const config = parseNetworkConfig(text, givesSubnets)
    const fits = isCompatible(subnets, config.ranges)
    // Of another family, nothing is known of this host yet.
    if (fits || isDeepStrictEqual(familiesOf(subnets), familiesOf(config.ranges))) checkBackend(config, host)
    if (fits) return ''
    return `the network config changed, and our lease ${key} does not fit it: restart the agent to take another`
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error
    return `the network config in the registry cannot be used: ${error.message}`
  }
}
