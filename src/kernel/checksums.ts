/**
 * Whether links compute the checksums of what they send (`tx-checksum-ip-generic`), over the kernel's ethtool family. A
 * change of it is told as a change of the link, without saying which: so it is read again whenever a link was told.
 */

import { Connection } from '../netlink/connection.ts'
import {
  decodeFeatures,
  ETHTOOL,
  featureState,
  getFeatures,
  setFeatures,
  TX_CHECKSUM_IP_GENERIC,
} from '../netlink/ethtool.ts'
import { decodeFamily, getFamily, NETLINK_GENERIC } from '../netlink/generic.ts'
import { NetlinkError } from '../netlink/message.ts'

export class Checksums {
  readonly #connection: Connection
  /** Of the family; undefined for a kernel before 5.8. */
  readonly #family: number | undefined

  private constructor(connection: Connection, family: number | undefined) {
    this.#connection = connection
    this.#family = family
  }

  /** @throws {NetlinkError} */
  static async open(netns: string | undefined): Promise<Checksums> {
    const connection = Connection.open({ netns, protocol: NETLINK_GENERIC })
    try {
      const { id } = decodeFamily((await connection.get(getFamily(ETHTOOL))).payload)
      return new Checksums(connection, id)
    } catch (error) {
      if (!(error instanceof NetlinkError)) throw error
      return new Checksums(connection, undefined)
    }
  }

  /** Undefined when it cannot be known: the kernel is too old, or the link has gone. */
  async read(ifindex: number): Promise<boolean | undefined> {
    if (this.#family === undefined) return undefined
    try {
      const { payload } = await this.#connection.get(getFeatures(this.#family, ifindex))
      return featureState(decodeFeatures(payload), TX_CHECKSUM_IP_GENERIC)?.active
    } catch (error) {
      if (error instanceof NetlinkError) return undefined
      throw error
    }
  }

  /** @throws {Error} */
  async set(ifindex: number, on: boolean): Promise<void> {
    if (this.#family === undefined) {
      throw new Error(`this kernel cannot be told to switch ${TX_CHECKSUM_IP_GENERIC} (Linux 5.8 can)`)
    }
    await this.#connection.request(setFeatures(this.#family, ifindex, { [TX_CHECKSUM_IP_GENERIC]: on }))
  }

  close(): void {
    this.#connection.close()
  }
}
