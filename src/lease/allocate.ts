/** Which subnets a host gets: flannel's rules, as one decision over all leases. The registry carries it out. */

import {
  FAMILIES,
  type Family,
  familyBits,
  ipFromNumber,
  ipToNumber,
  ipv4Bits,
  type PerFamily,
} from '../address/ip.ts'
import {
  type Prefix,
  prefixBase,
  prefixCovers,
  prefixesOverlap,
  prefixFamily,
  prefixLength,
  prefixOf,
  prefixSize,
} from '../address/prefix.ts'
import type { SubnetRange } from '../config/network-config.ts'
import { type Lease, type LeaseAttributes, sameHost } from './lease.ts'

export interface AllocationInput {
  readonly ranges: PerFamily<SubnetRange>
  readonly publicIps: LeaseAttributes['publicIps']
  /** The subnets held before, taken again when they are free. */
  readonly previous: PerFamily<Prefix>
  /** The lease that this host holds, as it was given; undefined when it holds none. */
  readonly current?: Lease | undefined
  /** The leases that are in force, and an expired one of this host that nobody took. */
  readonly leases: readonly Lease[]
  /** Subnets of entries that cannot be read: nobody's to take. */
  readonly unreadable: readonly PerFamily<Prefix>[]
  /** A uniform whole number, 0 ≤ n < below. */
  readonly random: (below: number) => number
}

/** `remove`: leases of this host that give way. Reservations are the operator's and stay. */
export type Allocation =
  | { readonly kind: 'reuse'; readonly lease: Lease; readonly remove: readonly Lease[] }
  | { readonly kind: 'take'; readonly subnets: PerFamily<Prefix>; readonly remove: readonly Lease[] }
  | { readonly kind: 'out-of-subnets'; readonly message: string }

/** flannel chooses among the first hundred free subnets: hosts that ask at once rarely meet. */
const CANDIDATES = 100

export function chooseSubnets(input: AllocationInput): Allocation {
  const mine = input.leases.filter((lease) => isMine(lease, input))
  const lease = mine.filter(({ subnets }) => isCompatible(subnets, input.ranges)).sort(byPreference)[0]
  const remove = mine.filter((other) => other !== lease && other.expires !== undefined)
  if (lease !== undefined) return { kind: 'reuse', lease, remove }

  const gone = new Set(remove)
  const subnets: Partial<Record<Family, Prefix>> = {}
  for (const range of Object.values(input.ranges)) {
    const family = prefixFamily(range.network)
    const taken = takenSubnets(input, gone, family)
    const previous = input.previous[family]
    const again =
      previous !== undefined &&
      isInRange(previous, range) &&
      !taken.some((other) => prefixesOverlap(other, previous))
    const subnet = again ? previous : pickFree(range, taken, input.random)
    if (subnet === undefined)
      return { kind: 'out-of-subnets', message: exhaustion(range, taken, input.leases) }
    subnets[family] = subnet
  }
  return { kind: 'take', subnets, remove }
}

/** Those of all leases but some, and of what cannot be read. */
function takenSubnets(
  { leases, unreadable }: AllocationInput,
  except: ReadonlySet<Lease>,
  family: Family,
): Prefix[] {
  const taken: Prefix[] = []
  for (const lease of leases) {
    const subnet = lease.subnets[family]
    if (subnet !== undefined && !except.has(lease)) taken.push(subnet)
  }
  for (const { [family]: subnet } of unreadable) if (subnet !== undefined) taken.push(subnet)
  return taken
}

function isMine({ key, publicIps }: Lease, input: AllocationInput): boolean {
  const { current } = input
  return (
    sameHost(publicIps, input.publicIps) || (key === current?.key && sameHost(publicIps, current.publicIps))
  )
}

/** A reservation before a lease that expires: the operator wants it. Then the older. */
function byPreference(a: Lease, b: Lease): number {
  return Number(b.expires === undefined) - Number(a.expires === undefined) || a.created - b.created
}

/** Exactly the enabled families, each within its range. */
export function isCompatible(subnets: PerFamily<Prefix>, ranges: PerFamily<SubnetRange>): boolean {
  return FAMILIES.every((family) => {
    const subnet = subnets[family]
    const range = ranges[family]
    return subnet === undefined || range === undefined ? subnet === range : isInRange(subnet, range)
  })
}

function isInRange(subnet: Prefix, range: SubnetRange): boolean {
  const { network, subnetLength, subnetMin, subnetMax, given } = range
  if (given === true) return prefixCovers(network, subnet)
  const base = ipToNumber(prefixBase(subnet))
  return (
    prefixLength(subnet) === subnetLength && ipToNumber(subnetMin) <= base && base <= ipToNumber(subnetMax)
  )
}

function pickFree(
  range: SubnetRange,
  taken: readonly Prefix[],
  random: (below: number) => number,
): Prefix | undefined {
  const free = freeSubnets(range, taken, CANDIDATES)
  const number = free.length === 0 ? undefined : free[random(free.length)]
  if (number === undefined) return undefined
  const base = ipToNumber(range.subnetMin) + BigInt(number) * subnetSize(range)
  return prefixOf(ipFromNumber(base, prefixFamily(range.network)), range.subnetLength)
}

/**
 * The first free subnets, counted from the first of the range. One walk over the taken blocks in order, which jumps over
 * each: the work grows with the leases and not with the network.
 */
function freeSubnets(range: SubnetRange, taken: readonly Prefix[], limit: number): number[] {
  const count = countSubnets(range)
  const blocks: Block[] = []
  for (const prefix of taken) {
    const block = touchedBy(prefix, range)
    if (block.last >= 0 && block.first < count) blocks.push(block)
  }
  blocks.sort((a, b) => a.first - b.first)
  const free: number[] = []
  let next = 0
  for (const { first, last } of blocks) {
    for (; next < first && free.length < limit; next++) free.push(next)
    next = Math.max(next, last + 1)
  }
  for (; next < count && free.length < limit; next++) free.push(next)
  return free
}

function countSubnets(range: SubnetRange): number {
  return Number((ipToNumber(range.subnetMax) - ipToNumber(range.subnetMin)) / subnetSize(range)) + 1
}

/** Subnets of a range, by their numbers in it. */
interface Block {
  readonly first: number
  readonly last: number
}

/** The subnets of the range that a prefix shares an address with, counted as they are. With small numbers where they do. */
function touchedBy(prefix: Prefix, range: SubnetRange): Block {
  const base = ipv4Bits(prefix, prefix.indexOf('/'))
  const min = ipv4Bits(range.subnetMin)
  if (base !== undefined && min !== undefined) {
    const size = 2 ** (32 - range.subnetLength)
    const end = base + 2 ** (32 - prefixLength(prefix)) - 1
    return { first: Math.floor((base - min) / size), last: Math.floor((end - min) / size) }
  }
  const size = subnetSize(range)
  const offset = ipToNumber(prefixBase(prefix)) - ipToNumber(range.subnetMin)
  const at = (address: bigint): number => Number(address < 0n ? -1n : address / size)
  return { first: at(offset), last: at(offset + prefixSize(prefix) - 1n) }
}

/** Aligned blocks either nest or are apart, so `base` stays on a boundary of this size. */
function subnetSize({ network, subnetLength }: SubnetRange): bigint {
  return 1n << BigInt(familyBits(prefixFamily(network)) - subnetLength)
}

function exhaustion(range: SubnetRange, taken: readonly Prefix[], leases: readonly Lease[]): string {
  const { subnetMin, subnetMax, subnetLength } = range
  const all = countSubnets(range)
  const reserved = leases.filter(({ expires }) => expires === undefined).length
  return `out of subnets: all ${all} subnets of length ${subnetLength} from ${subnetMin} to ${subnetMax} are taken (${taken.length} entries in the registry, ${reserved} of them reservations)`
}
