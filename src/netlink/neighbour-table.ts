/**
 * Parameters of the neighbour tables: `struct ndtmsg`, NDTA_* and NDTPA_* (linux/neighbour.h).
 *
 * They are the sysctls `net.ipv4.neigh.<link>.*` and `net.ipv6.neigh.<link>.*`. The socket reaches those of the
 * namespace it was opened in, where /proc/sys would be that of whoever mounted it.
 */

import { type Attribute, type Mutable, POOL, Reader } from './attribute.ts'
import { NLM_F_DUMP, NLM_F_REQUEST, type Request } from './message.ts'
import { AF_INET, type AF_INET6, RTM_GETNEIGHTBL, RTM_SETNEIGHTBL } from './rtnetlink.ts'

const NDTA_NAME = 1
const NDTA_PARMS = 6
const NDTPA_IFINDEX = 1
const NDTPA_APP_PROBES = 9

const NDTMSG = 4

/** The parameters of one link. */
export interface NeighbourParameters {
  /** Absent for the table's defaults, which a new link is given. */
  readonly ifindex?: number | undefined
  /**
   * `app_solicit`: how many times RTM_GETNEIGH asks RTNLGRP_NEIGH for an address before the kernel sends probes of
   * its own.
   */
  readonly appProbes?: number | undefined
  readonly unknown: readonly Attribute[]
}

/** One message of a dump: the defaults of a table, or what it holds for one link. */
export interface NeighbourTable {
  readonly family: number
  /** `arp_cache`, `ndisc_cache` */
  readonly name?: string | undefined
  readonly parameters?: NeighbourParameters | undefined
  readonly unknown: readonly Attribute[]
}

/** @throws {DecodeError} */
export function decodeNeighbourTable(payload: Uint8Array): NeighbourTable {
  const reader = new Reader(payload, NDTMSG)
  const unknown: Attribute[] = []
  const table: Mutable<NeighbourTable> = { family: reader.u8(0), unknown }
  while (reader.next()) {
    if (reader.type === NDTA_NAME) table.name = reader.text()
    else if (reader.type === NDTA_PARMS) table.parameters = decodeParameters(reader.nested())
    else unknown.push(reader.attribute())
  }
  return table
}

function decodeParameters(reader: Reader): NeighbourParameters {
  const unknown: Attribute[] = []
  const parameters: Mutable<NeighbourParameters> = { unknown }
  while (reader.next()) {
    if (reader.type === NDTPA_IFINDEX) parameters.ifindex = reader.u32()
    else if (reader.type === NDTPA_APP_PROBES) parameters.appProbes = reader.u32()
    else unknown.push(reader.attribute())
  }
  return parameters
}

export function encodeNeighbourTable(table: Partial<NeighbourTable>, writer = POOL): Uint8Array {
  const { parameters } = table
  writer.start(NDTMSG)
  writer.u8(0, table.family ?? 0)
  writer.putText(NDTA_NAME, table.name)
  if (parameters !== undefined) {
    writer.nest(NDTA_PARMS, () => {
      writer.putU32(NDTPA_IFINDEX, parameters.ifindex)
      writer.putU32(NDTPA_APP_PROBES, parameters.appProbes)
      writer.putAll(parameters.unknown)
    })
  }
  writer.putAll(table.unknown)
  return writer.finish()
}

/** Sets `app_solicit` of one link. */
export function setAppProbes(
  family: typeof AF_INET | typeof AF_INET6,
  ifindex: number,
  appProbes: number,
): Request {
  const name = family === AF_INET ? 'arp_cache' : 'ndisc_cache'
  const payload = encodeNeighbourTable({ family, name, parameters: { ifindex, appProbes, unknown: [] } })
  return { type: RTM_SETNEIGHTBL, flags: NLM_F_REQUEST, payload }
}

/** A dump of the tables with the parameters of every link: the kernel knows no narrower filter than the family. */
export function getNeighbourTables(family: number): Request {
  const payload = encodeNeighbourTable({ family })
  return { type: RTM_GETNEIGHTBL, flags: NLM_F_REQUEST | NLM_F_DUMP, payload }
}
