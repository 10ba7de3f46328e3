/** What is particular to a bridge: IFLA_BR_* (linux/if_link.h), inside IFLA_LINKINFO of a link. */

import type { Attribute, Mutable, Reader, Writer } from './attribute.ts'

const IFLA_BR_FORWARD_DELAY = 1
const IFLA_BR_AGEING_TIME = 4
const IFLA_BR_STP_STATE = 5
const IFLA_BR_VLAN_FILTERING = 7
const IFLA_BR_MCAST_SNOOPING = 23

/** Times in 1/100 s. */
export interface Bridge {
  readonly forwardDelay?: number | undefined
  readonly ageingTime?: number | undefined
  /** 0: none, 1: the kernel's, 2: a daemon's. */
  readonly stpState?: number | undefined
  readonly vlanFiltering?: boolean | undefined
  readonly multicastSnooping?: boolean | undefined
  readonly unknown?: readonly Attribute[] | undefined
}

/** @param reader Of the attributes in IFLA_INFO_DATA. @throws {DecodeError} */
export function decodeBridge(reader: Reader): Bridge {
  const unknown: Attribute[] = []
  const bridge: Mutable<Bridge> = { unknown }
  while (reader.next()) {
    switch (reader.type) {
      case IFLA_BR_FORWARD_DELAY:
        bridge.forwardDelay = reader.u32()
        break
      case IFLA_BR_AGEING_TIME:
        bridge.ageingTime = reader.u32()
        break
      case IFLA_BR_STP_STATE:
        bridge.stpState = reader.u32()
        break
      case IFLA_BR_VLAN_FILTERING:
        bridge.vlanFiltering = reader.boolean()
        break
      case IFLA_BR_MCAST_SNOOPING:
        bridge.multicastSnooping = reader.boolean()
        break
      default:
        unknown.push(reader.attribute())
    }
  }
  return bridge
}

/** Puts the attributes of IFLA_INFO_DATA. */
export function encodeBridge(bridge: Bridge, writer: Writer): void {
  writer.putU32(IFLA_BR_FORWARD_DELAY, bridge.forwardDelay)
  writer.putU32(IFLA_BR_AGEING_TIME, bridge.ageingTime)
  writer.putU32(IFLA_BR_STP_STATE, bridge.stpState)
  writer.putBoolean(IFLA_BR_VLAN_FILTERING, bridge.vlanFiltering)
  writer.putBoolean(IFLA_BR_MCAST_SNOOPING, bridge.multicastSnooping)
  writer.putAll(bridge.unknown)
}
