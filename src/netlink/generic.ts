/**
 * Generic netlink (linux/genetlink.h): one protocol for many families, each with a name for ever and a number, the
 * type of its messages, that the kernel gives it when it is loaded. The controller, family 16, tells the numbers.
 */

import { type Attribute, type Mutable, POOL, Reader, type Writer } from './attribute.ts'
import { NLM_F_REQUEST, type Request } from './message.ts'

export const NETLINK_GENERIC = 16

const GENL_ID_CTRL = 16
const CTRL_VERSION = 1
const CTRL_CMD_GETFAMILY = 3

const CTRL_ATTR_FAMILY_ID = 1
const CTRL_ATTR_FAMILY_NAME = 2
const CTRL_ATTR_VERSION = 3
const CTRL_ATTR_MCAST_GROUPS = 7

const CTRL_ATTR_MCAST_GRP_NAME = 1
const CTRL_ATTR_MCAST_GRP_ID = 2

/** `struct genlmsghdr`: u8 command, u8 version, u16 reserved. */
export const GENLMSGHDR = 4

export interface GenericHeader {
  readonly command: number
  readonly version: number
}

/** What the controller tells of a family. */
export interface Family {
  readonly command: number
  /** The type of the family's messages. */
  readonly id?: number | undefined
  readonly name?: string | undefined
  readonly version?: number | undefined
  /** Numbers of the multicast groups, by name. */
  readonly groups: ReadonlyMap<string, number>
  readonly unknown: readonly Attribute[]
}

/** @throws {DecodeError} */
export function decodeGenericHeader(payload: Uint8Array): GenericHeader {
  const reader = new Reader(payload, GENLMSGHDR)
  return { command: reader.u8(0), version: reader.u8(1) }
}

/** Begins a payload with the header. */
export function startGeneric(writer: Writer, { command, version }: GenericHeader): void {
  writer.start(GENLMSGHDR)
  writer.u8(0, command)
  writer.u8(1, version)
}

/** @throws {DecodeError} */
export function decodeFamily(payload: Uint8Array): Family {
  const reader = new Reader(payload, GENLMSGHDR)
  const groups = new Map<string, number>()
  const unknown: Attribute[] = []
  const family: Mutable<Family> = { command: reader.u8(0), groups, unknown }
  while (reader.next()) {
    switch (reader.type) {
      case CTRL_ATTR_FAMILY_ID:
        family.id = reader.u16()
        break
      case CTRL_ATTR_FAMILY_NAME:
        family.name = reader.text()
        break
      case CTRL_ATTR_VERSION:
        family.version = reader.u32()
        break
      case CTRL_ATTR_MCAST_GROUPS:
        decodeGroups(reader.nested(), groups)
        break
      default:
        unknown.push(reader.attribute())
    }
  }
  return family
}

/** A list: the types of its members are their places, from 1. */
function decodeGroups(list: Reader, groups: Map<string, number>): void {
  while (list.next()) {
    const member = list.nested()
    let name: string | undefined
    let id: number | undefined
    while (member.next()) {
      if (member.type === CTRL_ATTR_MCAST_GRP_NAME) name = member.text()
      if (member.type === CTRL_ATTR_MCAST_GRP_ID) id = member.u32()
    }
    if (name !== undefined && id !== undefined) groups.set(name, id)
  }
}

export function encodeFamily(family: Partial<Family>, writer = POOL): Uint8Array {
  const { command = CTRL_CMD_GETFAMILY, groups = new Map<string, number>() } = family
  startGeneric(writer, { command, version: CTRL_VERSION })
  writer.putU16(CTRL_ATTR_FAMILY_ID, family.id)
  writer.putText(CTRL_ATTR_FAMILY_NAME, family.name)
  writer.putU32(CTRL_ATTR_VERSION, family.version)
  if (groups.size > 0) writer.nest(CTRL_ATTR_MCAST_GROUPS, () => putGroups(groups, writer))
  writer.putAll(family.unknown)
  return writer.finish()
}

function putGroups(groups: ReadonlyMap<string, number>, writer: Writer): void {
  let place = 0
  for (const [name, id] of groups) {
    writer.nest(++place, () => {
      writer.putU32(CTRL_ATTR_MCAST_GRP_ID, id)
      writer.putText(CTRL_ATTR_MCAST_GRP_NAME, name)
    })
  }
}

/** A family by its name, at most 15 characters: ENOENT when there is none. The kernel loads the family's module. */
export function getFamily(name: string): Request {
  return {
    type: GENL_ID_CTRL,
    flags: NLM_F_REQUEST,
    payload: encodeFamily({ name }),
    operation: `CTRL_CMD_GETFAMILY ${name}`,
  }
}
