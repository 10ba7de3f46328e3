/** Whether a lease is good by itself: for our network, beside us, for our backend. */

import {
  FAMILIES,
  type Family,
  type Ip,
  isLoopback,
  isMulticast,
  isUnspecified,
  type PerFamily,
} from '../address/ip.ts'
import { type Prefix, prefixCovers, prefixesOverlap } from '../address/prefix.ts'
import type { SubnetRange } from '../config/network-config.ts'
import type { Claim, Lease } from './lease.ts'

export interface AdmissionRules {
  readonly ranges: PerFamily<SubnetRange>
  /** Our own lease. */
  readonly self: Lease
  readonly backendType: string
  /** The backend's view: whether its data can be used, and what it claims for itself alone. */
  readonly judge: (lease: Lease) => { readonly claims: readonly Claim[] } | { readonly refused: string }
}

/** An admitted lease is cut down to the families of our network. `ignored` is harmless: not meant for us. */
export type Outcome =
  | { readonly kind: 'own' }
  | { readonly kind: 'admitted'; readonly lease: Lease }
  | { readonly kind: 'ignored'; readonly reason: string }
  | { readonly kind: 'refused'; readonly reason: string }

/** A lease that is good by itself. */
export interface Candidate {
  readonly kind: 'candidate'
  readonly lease: Lease
  readonly claims: readonly Claim[]
}

/** What becomes of a lease as far as it alone decides. */
export function judgeAlone(
  lease: Lease,
  { ranges, self, backendType, judge }: AdmissionRules,
): Candidate | Outcome {
  if (lease.key === self.key) return { kind: 'own' }
  const foreign = foreignType(lease.backendType, backendType)
  if (foreign !== undefined) return { kind: 'ignored', reason: foreign }
  const ours = restrict(lease, ranges)
  let carried = false
  for (const family of FAMILIES) {
    const subnet = ours.subnets[family]
    const range = ranges[family]
    if (subnet === undefined || range === undefined) continue
    const reason = subnetFault(subnet, range, self.subnets[family]) ?? publicIpFault(ours, self, family)
    if (reason !== undefined) return { kind: 'refused', reason }
    carried = true
  }
  if (!carried) return { kind: 'ignored', reason: 'it has no subnet of our address family' }
  const result = judge(ours)
  if ('refused' in result) return { kind: 'refused', reason: result.refused }
  return { kind: 'candidate', lease: ours, claims: result.claims }
}

/** Of a lease that was judged good. */
export function candidateOf(lease: Lease, { judge }: AdmissionRules): Candidate {
  const result = judge(lease)
  return { kind: 'candidate', lease, claims: 'claims' in result ? result.claims : [] }
}

function foreignType(type: string, ours: string): string | undefined {
  if (type === ours) return undefined
  return type === '' ? 'no host has claimed it yet' : `its backend is ${type}, ours is ${ours}`
}

function subnetFault(subnet: Prefix, { network }: SubnetRange, own: Prefix | undefined): string | undefined {
  if (!prefixCovers(network, subnet)) return `${subnet} is outside the network ${network}`
  if (own !== undefined && prefixesOverlap(subnet, own)) return `${subnet} overlaps our own subnet ${own}`
  return undefined
}

function publicIpFault(lease: Lease, self: Lease, family: Family): string | undefined {
  const ip = lease.publicIps[family]
  if (ip === undefined) return `it has no public IP for ${lease.subnets[family]}`
  const kind = unusable(ip)
  if (kind !== undefined) return `public IP ${ip} is ${kind} address`
  return ip === self.publicIps[family] ? `public IP ${ip} is our own` : undefined
}

function unusable(ip: Ip): string | undefined {
  if (isUnspecified(ip)) return 'the unspecified'
  if (isLoopback(ip)) return 'a loopback'
  if (isMulticast(ip)) return 'a multicast'
  return ip === '255.255.255.255' ? 'the broadcast' : undefined
}

function hasPart({ subnets, publicIps, backendData }: Lease, family: Family): boolean {
  return (subnets[family] ?? publicIps[family] ?? backendData[family]) !== undefined
}

/** Without what belongs to families that our network does not have: no backend is tempted to program it. */
function restrict(lease: Lease, ranges: PerFamily<SubnetRange>): Lease {
  let foreign = false
  for (const family of FAMILIES) foreign ||= ranges[family] === undefined && hasPart(lease, family)
  if (!foreign) return lease
  const cut = <T>({ inet, inet6 }: PerFamily<T>): PerFamily<T> => ({
    ...(inet !== undefined && ranges.inet !== undefined && { inet }),
    ...(inet6 !== undefined && ranges.inet6 !== undefined && { inet6 }),
  })
  const { subnets, publicIps, backendData } = lease
  return { ...lease, subnets: cut(subnets), publicIps: cut(publicIps), backendData: cut(backendData) }
}
