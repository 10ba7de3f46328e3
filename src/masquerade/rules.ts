/**
 * The rules that the overlay needs of the packet filter, said once for both families and for both of its languages.
 *
 * Masquerade: containers that talk to the world outside borrow the host's address; inside the network every source
 * address stays as it is. Forward: the host forwards the network's packets even if its policy is to drop (Docker sets
 * that policy). Order matters in the first and not in the second.
 */

import type { Family, PerFamily } from '../address/ip.ts'
import { type Prefix, parsePrefix } from '../address/prefix.ts'

export interface OverlayNetwork {
  readonly network: Prefix
  /** This host's own. */
  readonly subnet: Prefix
}

/** What shall hold on this host. A family that is absent shall have no rules. */
export interface FirewallRules {
  readonly networks: PerFamily<OverlayNetwork>
  readonly masquerade: boolean
  readonly forward: boolean
  /** Source ports are chosen at random: parallel connections then do not race for one. Left out where unsupported. */
  readonly randomFully: boolean
}

export const NO_RULES: FirewallRules = {
  networks: {},
  masquerade: false,
  forward: false,
  randomFully: false,
}

/** The bit by which kube-proxy marks what it will masquerade itself. Other bits of the mark are other people's. */
export const KUBE_PROXY_MARK = 0x4000

export interface AddressMatch {
  readonly prefix: Prefix
  /** Every address but those of the prefix. */
  readonly negated: boolean
}

/** One rule. What is undefined matches everything. */
export interface Rule {
  /** `KUBE_PROXY_MARK` is set. */
  readonly marked?: true
  readonly source?: AddressMatch
  readonly destination?: AddressMatch
  readonly verdict: 'return' | 'accept' | 'masquerade' | 'masquerade fully-random'
}

/** The rules of each purpose, in order; without rules there is no chain. */
export type PlannedRules = Readonly<Record<Purpose, readonly Rule[]>>

export const PURPOSES = ['masquerade', 'forward'] as const
export type Purpose = (typeof PURPOSES)[number]

/** What leads from the actual rules of one family to the wanted ones; the script is empty when nothing differs. */
export interface FilterPlan {
  readonly script: string
  readonly changes: readonly Change[]
}

/** One chain, or table of chains, that was not as wanted, and was put right. */
export interface Change {
  readonly family: Family
  /** As the filter names it: `nat FLANNEL-POSTRTG`, or the table `flannel-ipv4`. */
  readonly chain: string
  /** What differed, for the log. */
  readonly why: string
}

export function planRules(rules: FirewallRules, family: Family): PlannedRules {
  const overlay = rules.networks[family]
  return {
    masquerade: overlay && rules.masquerade ? masqueradeRules(overlay, family, rules.randomFully) : [],
    forward: overlay && rules.forward ? forwardRules(overlay) : [],
  }
}

export function isEmpty(planned: PlannedRules): boolean {
  return planned.masquerade.length === 0 && planned.forward.length === 0
}

const MULTICAST = { inet: parsePrefix('224.0.0.0/4'), inet6: parsePrefix('ff00::/8') }

function masqueradeRules(
  { network, subnet }: OverlayNetwork,
  family: Family,
  randomFully: boolean,
): readonly Rule[] {
  const masquerade = randomFully ? 'masquerade fully-random' : 'masquerade'
  return [
    { marked: true, verdict: 'return' },
    { source: only(subnet), destination: only(network), verdict: 'return' },
    { source: only(network), destination: only(subnet), verdict: 'return' },
    // From outside to a container that is here: its answer comes back through this host, so it may see who asks.
    { source: except(network), destination: only(subnet), verdict: 'return' },
    { source: only(network), destination: except(MULTICAST[family]), verdict: masquerade },
    // From outside through this host to a container elsewhere: the answer has to come back through this host.
    { source: except(network), destination: only(network), verdict: masquerade },
  ]
}

function forwardRules({ network }: OverlayNetwork): readonly Rule[] {
  return [
    { source: only(network), verdict: 'accept' },
    { destination: only(network), verdict: 'accept' },
  ]
}

function only(prefix: Prefix): AddressMatch {
  return { prefix, negated: false }
}

function except(prefix: Prefix): AddressMatch {
  return { prefix, negated: true }
}
