/** The links of a host with their addresses, in the order in which flannel would take one. */

import { type Family, type Ip, isLinkLocal, isLoopback } from '../address/ip.ts'
import type { Mac } from '../address/mac.ts'
import {
  type Address,
  decodeAddress,
  getAddresses,
  IFA_F_DADFAILED,
  IFA_F_DEPRECATED,
  IFA_F_PERMANENT,
  IFA_F_SECONDARY,
} from '../netlink/address.ts'
import type { Connection } from '../netlink/connection.ts'
import { decodeLink, getLinks } from '../netlink/link.ts'
import { AF_INET, AF_INET6 } from '../netlink/rtnetlink.ts'

export interface Interface {
  readonly name: string
  readonly index: number
  readonly mtu: number
  readonly mac: Mac | undefined
  /** Usable ones, the best first. */
  readonly addresses: Readonly<Record<Family, readonly Ip[]>>
}

/** An address, and how much it is to be preferred: the least before all. */
interface Candidate {
  readonly ip: Ip
  readonly rank: number
}

/** All links. */
export async function listInterfaces(connection: Connection): Promise<Interface[]> {
  const links: Omit<Interface, 'addresses'>[] = []
  await connection.dump(getLinks(), ({ payload }) => {
    const { index, name = '', mtu = 0, mac } = decodeLink(payload)
    links.push({ index, name, mtu, mac })
  })
  const inet = await listAddresses(connection, AF_INET)
  const inet6 = await listAddresses(connection, AF_INET6)
  return links.map((link) => {
    const addresses = { inet: sorted(inet.get(link.index)), inet6: sorted(inet6.get(link.index)) }
    return { ...link, addresses }
  })
}

/** Of each link, by its index, in the order in which the link got them. */
async function listAddresses(connection: Connection, family: number): Promise<Map<number, Candidate[]>> {
  const lists = new Map<number, Candidate[]>()
  await connection.dump(getAddresses(family), ({ payload }) => {
    const address = decodeAddress(payload)
    const candidate = candidateOf(address)
    if (candidate === undefined) return
    const list = lists.get(address.ifindex)
    if (list === undefined) lists.set(address.ifindex, [candidate])
    else list.push(candidate)
  })
  // The kernel tells the newest IPv6 address first. One that comes later shall not take the place of one in use.
  if (family === AF_INET6) for (const list of lists.values()) list.reverse()
  return lists
}

/** flannel's order: global before link-local; of IPv6, permanent before dynamic, then lasting before temporary. */
function candidateOf({ family, flags, local, address }: Address): Candidate | undefined {
  const ip = local ?? address
  if (ip === undefined || isLoopback(ip) || (flags & (IFA_F_DEPRECATED | IFA_F_DADFAILED)) !== 0)
    return undefined
  const linkLocal = Number(isLinkLocal(ip))
  if (family !== AF_INET6) return { ip, rank: linkLocal }
  const dynamic = Number((flags & IFA_F_PERMANENT) === 0)
  // IFA_F_TEMPORARY is the same bit: only of IPv4 does it mean "secondary".
  const temporary = Number((flags & IFA_F_SECONDARY) !== 0)
  return { ip, rank: 4 * linkLocal + 2 * dynamic + temporary }
}

function sorted(candidates: readonly Candidate[] = []): Ip[] {
  return candidates.toSorted((a, b) => a.rank - b.rank).map(({ ip }) => ip)
}
