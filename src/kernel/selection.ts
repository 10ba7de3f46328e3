/**
 * Which interface carries the outer packets: flannel's rules. What an operator says is tried in order, and the first that
 * is found is taken; when nothing is said, the interface that has the public IP; else that of the default route. Both
 * families of a dual-stack network go over one interface.
 */

import { AddressError, type Family, type Ip, type PerFamily, parseIp } from '../address/ip.ts'
import type { Connection } from '../netlink/connection.ts'
import { NetlinkError } from '../netlink/message.ts'
import { decodeRoute, getRoute } from '../netlink/route.ts'
import type { Interface } from './interfaces.ts'
import { defaultLink, type MainRoute } from './main-table.ts'

/** How an operator says which interface. */
export interface InterfaceChoice {
  /** Names or IPs. */
  readonly ifaces: readonly string[]
  /** Matched against all addresses, then against all names. */
  readonly regexes: readonly RegExp[]
  /** The interface through which the kernel would reach this address. */
  readonly canReach: Ip | undefined
  /** What peers shall send to; absent: the address of the interface. */
  readonly publicIps: PerFamily<Ip>
}

/** No interface can be used. The message says which were looked at. */
export class HostError extends Error {
  override readonly name = 'HostError'
}

export interface Selected {
  readonly found: Interface
  /** Where the choice named one of its addresses. */
  readonly addresses: PerFamily<Ip>
}

/** What is chosen from. */
export interface Candidates {
  readonly interfaces: readonly Interface[]
  /** Those of the network. */
  readonly families: readonly Family[]
}

/** How the tables name them. */
export const FAMILY_NAMES = { inet: 'IPv4', inet6: 'IPv6' } as const satisfies Record<Family, string>

/** @param routes The main table, read when it is needed. @throws {HostError} */
export async function selectInterface(
  connection: Connection,
  candidates: Candidates,
  choice: InterfaceChoice,
  routes: () => Promise<readonly MainRoute[]>,
): Promise<Selected> {
  const { ifaces, regexes, canReach, publicIps } = choice
  for (const iface of ifaces) {
    const ip = tryIp(iface)
    const selected = ip === undefined ? byName(candidates, (name) => name === iface) : byIp(candidates, ip)
    if (selected !== undefined) return selected
  }
  for (const regex of regexes) {
    const selected = byAddresses(candidates, regex) ?? byName(candidates, (name) => regex.test(name))
    if (selected !== undefined) return selected
  }
  if (canReach !== undefined) return await reaching(connection, candidates, canReach)
  if (ifaces.length + regexes.length > 0) {
    const wanted = [...ifaces, ...regexes].join(', ')
    const there = list(candidates)
    throw new HostError(`failed to find interface to use that matches ${wanted} (there are ${there})`)
  }
  for (const family of candidates.families) {
    const publicIp = publicIps[family]
    const local = publicIp && byIp(candidates, publicIp)
    if (local !== undefined) return local
  }
  return byDefaultRoute(candidates, await routes())
}

function byName({ interfaces }: Candidates, matches: (name: string) => boolean): Selected | undefined {
  const found = interfaces.find(({ name }) => matches(name))
  return found && { found, addresses: {} }
}

/** The interface that has the address, which is taken when its family is the network's. */
function byIp({ interfaces }: Candidates, ip: Ip): Selected | undefined {
  for (const found of interfaces) {
    if (found.addresses.inet.includes(ip)) return { found, addresses: { inet: ip } }
    if (found.addresses.inet6.includes(ip)) return { found, addresses: { inet6: ip } }
  }
  return undefined
}

/** The interface that has an address that matches in each family. */
function byAddresses({ interfaces, families }: Candidates, regex: RegExp): Selected | undefined {
  for (const found of interfaces) {
    const addresses: Partial<Record<Family, Ip>> = {}
    for (const family of families) {
      const ip = found.addresses[family].find((candidate) => regex.test(candidate))
      if (ip !== undefined) addresses[family] = ip
    }
    if (families.every((family) => addresses[family] !== undefined)) return { found, addresses }
  }
  return undefined
}

/** The interface, and the source address, that the kernel chooses for a packet to the address. */
async function reaching(
  connection: Connection,
  { interfaces }: Candidates,
  destination: Ip,
): Promise<Selected> {
  try {
    const { oif, preferredSource } = decodeRoute((await connection.get(getRoute(destination))).payload)
    const found = interfaces.find(({ index }) => index === oif)
    const source = preferredSource && byIp({ interfaces, families: [] }, preferredSource)
    if (found !== undefined) return { found, addresses: source?.found === found ? source.addresses : {} }
  } catch (error) {
    if (!(error instanceof NetlinkError)) throw error
  }
  throw new HostError(`-iface-can-reach is ${destination}: this host has no route to it`)
}

function byDefaultRoute(candidates: Candidates, routes: readonly MainRoute[]): Selected {
  const selected = candidates.families.map((family) => {
    const index = defaultLink(routes, family)
    const found = candidates.interfaces.find((candidate) => candidate.index === index)
    if (found !== undefined) return found
    const there = list(candidates)
    throw new HostError(
      `there is no ${FAMILY_NAMES[family]} default route: -iface must say which interface to use (there are ${there})`,
    )
  })
  const [found, other = found] = selected
  if (found === undefined) throw new HostError('the network has no address family')
  if (found === other) return { found, addresses: {} }
  throw new HostError(
    `v6 default route interface ${other?.name} must be the same with v4 default route interface ${found.name}: -iface can say which to use`,
  )
}

function tryIp(text: string): Ip | undefined {
  try {
    return parseIp(text)
  } catch (error) {
    if (error instanceof AddressError) return undefined
    throw error
  }
}

function list({ interfaces, families }: Candidates): string {
  return interfaces
    .map(({ name, addresses }) => `${name}:[${families.flatMap((family) => addresses[family]).join(' ')}]`)
    .join(', ')
}
