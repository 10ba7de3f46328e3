/**
 * Features of a link, such as checksum offload: the generic family `ethtool`, version 1 (Linux 5.8;
 * linux/ethtool_netlink.h), of which this speaks ETHTOOL_MSG_FEATURES_*.
 */

import { type Attribute, type Mutable, NLA_F_NESTED, POOL, Reader, type Writer } from './attribute.ts'
import { type Bitset, decodeBitset, putBitset } from './bitset.ts'
import { GENLMSGHDR, startGeneric } from './generic.ts'
import { NLM_F_REQUEST, type Request } from './message.ts'

export const ETHTOOL = 'ethtool'
/** The multicast group of the family that tells changes. */
export const ETHTOOL_MONITOR = 'monitor'

/** Commands have numbers of their own for each direction. */
const ETHTOOL_MSG_FEATURES_GET = 11
const ETHTOOL_MSG_FEATURES_SET = 12
export const ETHTOOL_MSG_FEATURES_GET_REPLY = 11
export const ETHTOOL_MSG_FEATURES_SET_REPLY = 12
/** Other commands come on the same group. */
export const ETHTOOL_MSG_FEATURES_NTF = 13

const ETHTOOL_GENL_VERSION = 1

const ETHTOOL_A_FEATURES_HEADER = 1
const ETHTOOL_A_FEATURES_HW = 2
const ETHTOOL_A_FEATURES_WANTED = 3
const ETHTOOL_A_FEATURES_ACTIVE = 4
const ETHTOOL_A_FEATURES_NOCHANGE = 5

const ETHTOOL_A_HEADER_DEV_INDEX = 1
const ETHTOOL_A_HEADER_DEV_NAME = 2

export const TX_CHECKSUM_IP_GENERIC = 'tx-checksum-ip-generic'

export interface Features {
  /** ETHTOOL_MSG_FEATURES_* */
  readonly command: number
  readonly ifindex?: number | undefined
  readonly name?: string | undefined
  /** Which can be changed. */
  readonly changeable?: Bitset | undefined
  /** What was asked for; in the answer to a change only where it could not be done, with what was asked for. */
  readonly wanted?: Bitset | undefined
  /** What is; in the answer to a change only what it changed, with what is now. */
  readonly active?: Bitset | undefined
  /** Which nobody can change. */
  readonly fixed?: Bitset | undefined
  readonly unknown: readonly Attribute[]
}

/**
 * An answer or a notification. A notification has bits without names: compare their indexes with those of an answer,
 * or ask again.
 *
 * @throws {DecodeError}
 */
export function decodeFeatures(payload: Uint8Array): Features {
  const reader = new Reader(payload, GENLMSGHDR)
  const unknown: Attribute[] = []
  const features: Mutable<Features> = { command: reader.u8(0), unknown }
  while (reader.next()) {
    switch (reader.type) {
      case ETHTOOL_A_FEATURES_HEADER:
        decodeHeader(reader.nested(), features)
        break
      case ETHTOOL_A_FEATURES_HW:
        features.changeable = decodeBitset(reader.nested())
        break
      case ETHTOOL_A_FEATURES_WANTED:
        features.wanted = decodeBitset(reader.nested())
        break
      case ETHTOOL_A_FEATURES_ACTIVE:
        features.active = decodeBitset(reader.nested())
        break
      case ETHTOOL_A_FEATURES_NOCHANGE:
        features.fixed = decodeBitset(reader.nested())
        break
      default:
        unknown.push(reader.attribute())
    }
  }
  return features
}

function decodeHeader(reader: Reader, features: Mutable<Features>): void {
  while (reader.next()) {
    if (reader.type === ETHTOOL_A_HEADER_DEV_INDEX) features.ifindex = reader.u32()
    if (reader.type === ETHTOOL_A_HEADER_DEV_NAME) features.name = reader.text()
  }
}

export function encodeFeatures(features: Partial<Features>, writer = POOL): Uint8Array {
  const { command = ETHTOOL_MSG_FEATURES_GET } = features
  startGeneric(writer, { command, version: ETHTOOL_GENL_VERSION })
  writer.nest(ETHTOOL_A_FEATURES_HEADER | NLA_F_NESTED, () => putHeader(features, writer))
  putBitset(writer, ETHTOOL_A_FEATURES_HW, features.changeable)
  putBitset(writer, ETHTOOL_A_FEATURES_WANTED, features.wanted)
  putBitset(writer, ETHTOOL_A_FEATURES_ACTIVE, features.active)
  putBitset(writer, ETHTOOL_A_FEATURES_NOCHANGE, features.fixed)
  writer.putAll(features.unknown)
  return writer.finish()
}

function putHeader({ ifindex, name }: Partial<Features>, writer: Writer): void {
  writer.putU32(ETHTOOL_A_HEADER_DEV_INDEX, ifindex)
  writer.putText(ETHTOOL_A_HEADER_DEV_NAME, name)
}

/** One feature of a link. */
export interface FeatureState {
  /** What is, and what was asked for: the kernel does not do all that it is asked for. */
  readonly active: boolean
  readonly wanted: boolean
  /** Whether it can be changed. */
  readonly changeable: boolean
}

/**
 * The feature of that name, `tx-checksum-ip-generic`, in the answer to {@link getFeatures}; undefined when this kernel
 * does not know it.
 */
export function featureState(features: Features, name: string): FeatureState | undefined {
  const { changeable, wanted, active, fixed } = features
  // Of the four only this one lists every feature of the kernel.
  if (changeable === undefined || !changeable.bits.some((bit) => bit.name === name)) return undefined
  return {
    active: isOn(active, name),
    wanted: isOn(wanted, name),
    changeable: isOn(changeable, name) && !isOn(fixed, name),
  }
}

function isOn(bitset: Bitset | undefined, name: string): boolean {
  return bitset?.bits.some((bit) => bit.name === name && bit.on) === true
}

/**
 * The features of one link: ENODEV when there is none.
 *
 * @param family The number of the family {@link ETHTOOL}.
 */
export function getFeatures(family: number, ifindex: number): Request {
  return {
    type: family,
    flags: NLM_F_REQUEST,
    payload: encodeFeatures({ command: ETHTOOL_MSG_FEATURES_GET, ifindex }),
    operation: `ETHTOOL_MSG_FEATURES_GET of link ${ifindex}`,
  }
}

/**
 * Switches features of one link by their names; others stay, but for those that the kernel switches with them (no
 * segmentation offload without checksums). What the link cannot do now is no error: the answer tells it as `wanted`.
 * EOPNOTSUPP for a name that this kernel does not know, EINVAL for a feature that no link can change.
 *
 * @param family The number of the family {@link ETHTOOL}.
 */
export function setFeatures(
  family: number,
  ifindex: number,
  wanted: Readonly<Record<string, boolean>>,
): Request {
  const bits = Object.entries(wanted).map(([name, on]) => ({ name, on }))
  return {
    type: family,
    flags: NLM_F_REQUEST,
    payload: encodeFeatures({
      command: ETHTOOL_MSG_FEATURES_SET,
      ifindex,
      wanted: { whole: false, bits },
    }),
    operation: `ETHTOOL_MSG_FEATURES_SET of link ${ifindex}`,
  }
}
