/**
 * The agent's journal: what happened, written to the log once for each change of state, and kept as the present state
 * for `tweed status`, health and metrics. It decides nothing.
 */

import { type Family, type Ip, ipFamily, type PerFamily } from '../address/ip.ts'
import type { Backend, CompanionStep, HostFacts } from '../backend/backend.ts'
import type { NetworkConfig } from '../config/network-config.ts'
import type { OutcomeChange } from '../lease/admission.ts'
import type { Outcome } from '../lease/judge.ts'
import type { Lease, LeaseKey } from '../lease/lease.ts'
import type { LeaseSnapshot } from '../lease/registry.ts'
import type { Logger } from '../log.ts'
import type { FirewallReport } from '../masquerade/firewall.ts'
import { type Entry, type Failure, type Key, keyOf, type Operation, type Report } from '../state.ts'
import { namesOf, Peers, type ShareOf } from './peers.ts'
import { printable } from './printable.ts'
import type { Counters, PeerState, Status } from './status.ts'
import { nameEntry, tellFailure } from './words.ts'

/** What is known once the agent is on the network. */
export interface Membership {
  readonly config: NetworkConfig
  /** As it stood in the registry. */
  readonly configText: string
  /** The public IPs that flags or the registry ask for. */
  readonly wantedIps: PerFamily<Ip>
  readonly host: HostFacts
  readonly backend: Backend
  readonly lease: Lease
}

/** Refused addresses are logged as a number, at most this often. Milliseconds. */
const REFUSED_MISSES_INTERVAL = 60_000
/** Of one turn's repairs, so many are named. */
const MAX_LINES = 10

export class Journal {
  readonly #log: Logger
  readonly #version: string
  readonly #registryName: string
  readonly #tellReady: (backend: Backend) => void
  readonly #started = performance.now()
  /** The last thing said on a topic: it is not said twice. */
  readonly #said = new Map([['subnet file', 'not written yet']])
  #peers = new Peers()
  readonly #counters = {
    turns: 0,
    operations: 0,
    failures: 0,
    repaired: 0,
    missesAnswered: 0,
    missesRefused: 0,
    leasesRefused: 0,
    overruns: 0,
    disconnects: 0,
    milliseconds: 0,
  }
  /** Counts by `kind verb`. */
  readonly operations: Map<string, number> = new Map()
  readonly operationFailures: Map<string, number> = new Map()
  readonly repairs: Map<string, number> = new Map()
  #membership: Membership | undefined
  #failures: ReadonlyMap<Key, Failure> = new Map()
  #waiting = 'starting'
  #registryFault = ''
  #kernelFault = ''
  #hostFault = ''
  #firewallFault = ''
  #subnetFileFault = 'not written yet'
  #configFault = ''
  #refusedUntold = 0
  #refusedTold = Number.NEGATIVE_INFINITY

  /** @param tellReady Called once, when everything is as it should be for the first time. */
  constructor(
    log: Logger,
    version: string,
    registryName: string,
    tellReady: (backend: Backend) => void = () => undefined,
  ) {
    this.#tellReady = tellReady
    this.#log = log
    this.#version = version
    this.#registryName = registryName
  }

  /** Why the agent is not on the network yet. */
  waiting(why: string): void {
    this.#waiting = why
    this.#say('waiting', why, () => this.#log.warn(why))
  }

  foundConfig({ backend: { type } }: NetworkConfig): void {
    this.#say('found config', type, () => this.#log.info(`Found network config - Backend type: ${type}`))
  }

  joined(membership: Membership): void {
    const { backend, host, lease } = membership
    const first = this.#membership === undefined
    this.#membership = membership
    this.#waiting = ''
    const facts = {
      ...namesOf({ subnets: lease.subnets, publicIps: host.publicIps }),
      interface: host.external.name,
      backend: backend.type,
      mtu: backend.mtu,
      expires: expiry(lease),
    }
    this.#log.info(facts, first ? 'lease acquired' : 'lease acquired again')
  }

  registryAvailable(): void {
    this.#registryFault = ''
    this.#say('registry', '', () => this.#log.info(`registry ${this.#registryName} is available again`))
  }

  registryUnavailable(reason: string): void {
    if (this.#registryFault === '') this.#counters.disconnects++
    this.#registryFault = reason
    this.#say('registry', reason, () => {
      this.#log.error(
        `registry ${this.#registryName} is unavailable: ${reason}; what is known stays in place`,
      )
    })
  }

  leasesHeld(count: number, seconds: number): void {
    this.#log.warn(
      `${count} leases are missing after an outage of the registry: they are kept for ${seconds} s, for their owners to renew`,
    )
  }

  /** The config in the registry is not the one that the agent runs with. */
  configDiffers(why: string): void {
    this.#configFault = why
    this.#say('config', why, () => {
      if (why === '') this.#log.info('the network config is again the one in use')
      else this.#log.warn(why)
    })
  }

  firewall({ changes, repaired, failures }: FirewallReport): void {
    for (const change of changes) {
      const text = `firewall: ${change.chain}: ${change.why}`
      if (repaired.includes(change)) this.#log.warn(`repaired ${text}`)
      else this.#log.info(text)
    }
    this.#counters.repaired += repaired.length
    if (repaired.length > 0)
      this.repairs.set('rules change', (this.repairs.get('rules change') ?? 0) + repaired.length)
    this.#firewallFault = failures.map(({ family, error }) => `${family}: ${error.message}`).join('; ')
    this.#say('firewall', this.#firewallFault, () => {
      if (this.#firewallFault === '') this.#log.info('firewall: the rules hold again')
      else this.#log.error(`firewall: ${this.#firewallFault}`)
    })
  }

  /** Why the external interface cannot be used; empty when it can. */
  host(fault: string): void {
    this.#hostFault = fault
    this.#say('host', fault, () => {
      if (fault === '') this.#log.info('the external interface is there again')
      else this.#log.error(fault)
    })
  }

  /** What the agent joined with is not so any more: it joins again. */
  changing(why: string): void {
    this.#log.info(`${why}: taking it up`)
    // Who left meanwhile is not told as gone: the next snapshot says who is there.
    this.#peers = new Peers()
  }

  leaseLost({ key }: Lease): void {
    this.#log.error({ lease: key }, 'our lease was lost; trying to take it again')
  }

  /** @param outcomes For every lease. They and the leases are kept as they are, and change with what is known. */
  snapshot(
    { leases, malformed }: Pick<LeaseSnapshot, 'leases' | 'malformed'>,
    outcomes: ReadonlyMap<LeaseKey, Outcome>,
    changes: Iterable<OutcomeChange>,
  ): void {
    for (const name of this.#peers.malformed.keys()) {
      if (!malformed.has(name)) this.#tellGone(`malformed ${name}`, name)
    }
    for (const [name, why] of malformed) this.#refuse(`malformed ${name}`, name, why)
    const first = this.#peers.size === 0
    this.#peers.set(leases, outcomes, malformed)
    for (const { key, before, after } of changes) {
      const lease = leases.get(key)
      if (after === undefined || lease === undefined) this.#forget(key, before)
      else this.#tellOutcome(key, after, lease, first || before?.kind === 'admitted')
    }
    if (first && this.#peers.size > 0) this.#log.info({ leases: this.#peers.size }, 'leases known')
  }

  turn(report: Report, failures: readonly Failure[], overruns: number): void {
    const counters = this.#counters
    counters.turns++
    counters.operations += report.operations.length
    counters.failures += report.failures.length
    counters.repaired += report.repaired.length
    counters.missesAnswered += report.misses.answered
    counters.missesRefused += report.misses.refused
    counters.overruns = overruns
    counters.milliseconds += report.duration
    for (const operation of report.operations) count(this.operations, operation)
    for (const { operation } of report.failures) count(this.operationFailures, operation)
    for (const operation of report.repaired) count(this.repairs, operation)
    this.#kernelFault = report.error?.message ?? ''
    this.#say('kernel', this.#kernelFault, () => {
      if (report.error === undefined) this.#log.info('the kernel can be read again')
      else this.#log.error({ err: report.error }, 'the kernel cannot be read')
    })
    this.#tellOperations(report)
    this.#tellFailures(failures)
    if (counters.turns === 1) this.#log.info(summary(report), 'first turn')
    this.#tellRefusedMisses(report.misses.refused)
  }

  /** What the backend did beside the kernel's tables. @param failures All that is to be tried again. */
  step(step: CompanionStep, failures: ReadonlyMap<LeaseKey, string>): void {
    const { kind, verb, lease, error } = step
    const name = `${kind} ${verb}`
    this.#counters.operations++
    this.operations.set(name, (this.operations.get(name) ?? 0) + 1)
    if (error !== '') {
      this.#counters.failures++
      this.operationFailures.set(name, (this.operationFailures.get(name) ?? 0) + 1)
    }
    this.#peers.stepFailures = failures
    const topic = `${name} ${lease.key}`
    const facts = { subnet: lease.subnets.inet ?? lease.subnets.inet6 }
    this.#say(topic, error, () => {
      if (error === '') this.#log.info(facts, `${name} succeeded`)
      else this.#log.error(facts, error)
    })
    if (error === '') this.#said.delete(topic)
  }

  /** What the backend did beside the kernel's tables could not be ended. */
  notStopped(why: string): void {
    this.#log.error(why)
  }

  subnetFile(path: string, fault: string): void {
    this.#subnetFileFault = fault
    this.#say('subnet file', fault, () => {
      if (fault === '') {
        this.#log.info(`Wrote subnet file to ${path}`)
        this.#log.info('flannel is ready')
        if (this.#membership !== undefined) this.#tellReady(this.#membership.backend)
      } else this.#log.error(`failed to write subnet file ${path}: ${fault}`)
    })
  }

  /** Why the agent is not ready; empty when it is. */
  get problems(): string[] {
    const own = this.#peers.own(this.#failures, this.#shareOf)
    return [
      this.#waiting,
      this.#registryFault && `registry: ${this.#registryFault}`,
      this.#hostFault && `host: ${this.#hostFault}`,
      this.#firewallFault && `firewall: ${this.#firewallFault}`,
      this.#kernelFault && `kernel: ${this.#kernelFault}`,
      this.#subnetFileFault && `subnet file: ${this.#subnetFileFault}`,
      this.#configFault,
      ...own,
    ].filter((problem) => problem !== '')
  }

  get ready(): boolean {
    return this.problems.length === 0 && this.#failures.size === 0 && this.#peers.stepFailures.size === 0
  }

  get counters(): Counters {
    return { ...this.#counters }
  }

  get version(): string {
    return this.#version
  }

  get registryUsable(): boolean {
    return this.#registryFault === ''
  }

  /** When our lease ends, in milliseconds since the epoch; undefined: never, or there is none. */
  get leaseExpires(): number | undefined {
    return this.#membership?.lease.expires
  }

  /** How many leases of other hosts are in each state. */
  get peerCounts(): Readonly<Record<PeerState, number>> {
    return this.#peers.count(this.#failures, this.#shareOf)
  }

  get status(): Status {
    const { config, host, backend, lease } = this.#membership ?? {}
    const own = backend === undefined || lease === undefined ? [] : backend.own(lease).entries
    return {
      version: this.#version,
      uptime: Math.round((performance.now() - this.#started) / 1000),
      network: config?.ranges.inet?.network ?? '',
      ipv6Network: config?.ranges.inet6?.network ?? '',
      backend: backend?.type ?? '',
      externalInterface: host?.external.name ?? '',
      publicIp: host?.publicIps.inet ?? '',
      publicIpv6: host?.publicIps.inet6 ?? '',
      link: linkWith(own, 'inet'),
      mac: backend?.mac.inet ?? '',
      ipv6Link: linkWith(own, 'inet6'),
      ipv6Mac: backend?.mac.inet6 ?? '',
      mtu: backend?.mtu ?? 0,
      lease: {
        subnet: lease?.subnets.inet ?? '',
        ipv6Subnet: lease?.subnets.inet6 ?? '',
        expires: lease === undefined ? null : expiry(lease),
      },
      registry: { name: this.#registryName, available: this.registryUsable, why: this.#registryFault },
      peers: this.#peers.statuses(this.#failures, this.#shareOf),
      problems: this.problems,
      ready: this.ready,
      counters: this.counters,
    }
  }

  readonly #shareOf: ShareOf = (lease) =>
    this.#membership?.backend.peer(lease) ?? { entries: [], answers: [] }

  /** @param known Whether a good one is no news: it was good before, or there from the start. */
  #tellOutcome(key: LeaseKey, outcome: Outcome, lease: Lease, known: boolean): void {
    switch (outcome.kind) {
      case 'own':
        return
      case 'admitted':
        this.#said.delete(key)
        if (!known) this.#log.info(namesOf(lease), 'peer joined')
        return
      case 'ignored':
        return this.#say(key, outcome.reason, () =>
          this.#log.info(namesOf(lease), `lease ignored: ${printable(outcome.reason)}`),
        )
      case 'refused':
        return this.#refuse(key, key, outcome.reason)
      default:
        outcome satisfies never
    }
  }

  #refuse(topic: string, lease: string, why: string): void {
    this.#say(topic, why, () => {
      this.#counters.leasesRefused++
      this.#log.warn({ lease: printable(lease) }, `lease refused: ${printable(why)}`)
    })
  }

  /** That our own is gone is said by `leaseLost`. */
  #forget(key: LeaseKey, outcome: Outcome | undefined): void {
    if (outcome?.kind === 'admitted') this.#log.info({ lease: key }, 'peer left')
    if (outcome?.kind === 'admitted' || outcome?.kind === 'own') this.#said.delete(key)
    else this.#tellGone(key, key)
  }

  #tellGone(topic: string, lease: string): void {
    this.#said.delete(topic)
    this.#log.info({ lease: printable(lease) }, 'lease that was not used is gone')
  }

  #tellOperations({ operations, repaired }: Report): void {
    for (const { entry, why } of repaired.slice(0, MAX_LINES))
      this.#log.warn(`repaired ${nameEntry(entry)}: ${why}`)
    if (repaired.length > MAX_LINES) this.#log.warn(`repaired ${repaired.length - MAX_LINES} entries more`)
    for (const operation of operations) {
      if (operation.entry.kind !== 'link' || repaired.includes(operation)) continue
      this.#log.info(`${operation.verb} ${nameEntry(operation.entry)}: ${operation.why}`)
    }
  }

  #tellFailures(failures: readonly Failure[]): void {
    const now = new Map<Key, Failure>(failures.map((failure) => [keyOf(failure.operation.entry), failure]))
    for (const key of this.#failures.keys()) {
      if (!now.has(key)) this.#say(key, '', () => this.#log.info(`${key} is as desired again`))
    }
    for (const [key, failure] of now)
      this.#say(key, tellFailure(failure), () => this.#log.error(tellFailure(failure)))
    this.#failures = now
  }

  #tellRefusedMisses(refused: number): void {
    this.#refusedUntold += refused
    const now = performance.now()
    if (this.#refusedUntold === 0 || now - this.#refusedTold < REFUSED_MISSES_INTERVAL) return
    this.#log.info({ count: this.#refusedUntold }, 'L3 misses for addresses outside every lease')
    this.#refusedUntold = 0
    this.#refusedTold = now
  }

  /** Says it if it differs from what was said last on the topic; that nothing is wrong, only after something was. */
  #say(topic: string, what: string, tellIt: () => unknown): void {
    if ((this.#said.get(topic) ?? '') === what) return
    this.#said.set(topic, what)
    tellIt()
  }
}

function count(counts: Map<string, number>, { verb, entry: { kind } }: Operation): void {
  const key = `${kind} ${verb}`
  counts.set(key, (counts.get(key) ?? 0) + 1)
}

/** The link that has our address of the family. */
function linkWith(entries: readonly Entry[], family: Family): string {
  for (const entry of entries)
    if (entry.kind === 'address' && ipFamily(entry.ip) === family) return entry.link
  return ''
}

function expiry({ expires }: Lease): string | null {
  return expires === undefined ? null : new Date(expires).toISOString()
}

function summary({ operations, failures, duration }: Report): Record<string, number> {
  return { operations: operations.length, failures: failures.length, milliseconds: Math.round(duration) }
}
