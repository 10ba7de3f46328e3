/**
 * The native addon, typed: datagram sockets opened inside a network namespace, and malloc's memory. Nothing else imports
 * the addon.
 *
 * Failures of system calls are Errors with `code` ('ENOENT'), `errno` (positive, as in errno(3)) and `syscall`.
 */

import { existsSync } from 'node:fs'
import { createRequire } from 'node:module'
import { fileURLToPath } from 'node:url'

export interface Socket {
  /** Sends one datagram. */
  send(bytes: Uint8Array): void
  /** The same on a thread, so that what it makes the kernel do takes no time here. */
  deliver(bytes: Uint8Array): Promise<void>
  /**
   * Receives the datagrams that are queued, each into its own slot of `slotSize` bytes, and waits at most `timeout`
   * milliseconds for the first. Gives their number, at most 64; `lengths` holds their true lengths: a length
   * greater than `slotSize` means that the rest was cut off. `overrun`: the kernel dropped datagrams because the
   * receive buffer was full; those that it kept are still to be received.
   */
  receive(slots: Uint8Array, slotSize: number, lengths: Uint32Array, timeout: number): number | 'overrun'
  /**
   * True when there is something to receive, an overrun included; false when the socket is closed first. One wait
   * at a time. Only a pending wait keeps the process alive.
   */
  readable(): Promise<boolean>
  /** Closing twice is closing once. */
  close(): void
}

interface Addon {
  readonly NetlinkSocket: new (
    netns: string | undefined,
    protocol: number,
    groups: Uint32Array,
    receiveBuffer: number,
  ) => Socket
  readonly IcmpSocket: new (netns: string | undefined, destination: Uint8Array) => Socket
  readonly UnixSocket: new (path: string) => Socket
  readonly trim: () => void
}

export interface NetlinkOptions {
  /** Path of a namespace, `/run/netns/x`; undefined for the process's own. The process itself never moves. */
  readonly netns?: string | undefined
  /** NETLINK_ROUTE (0), the default, or NETLINK_GENERIC (16). */
  readonly protocol?: number | undefined
  /** Multicast groups of the protocol, by number: RTNLGRP_*, or what a generic family says of its own. */
  readonly groups?: readonly number[]
  /** SO_RCVBUF in bytes; undefined for the system's default. */
  readonly receiveBuffer?: number
}

/** A bound netlink socket. */
export function openNetlink(options: NetlinkOptions): Socket {
  const { netns, protocol = 0, groups = [], receiveBuffer = 0 } = options
  return new (loadAddon().NetlinkSocket)(netns, protocol, Uint32Array.from(groups), receiveBuffer)
}

/**
 * A raw ICMP socket to the address (4 or 16 bytes). What it receives begins with the IPv4 header, and with that of ICMP
 * for IPv6, where the kernel also fills in the checksum.
 */
export function openIcmp(netns: string | undefined, destination: Uint8Array): Socket {
  return new (loadAddon().IcmpSocket)(netns, destination)
}

/** A unix datagram socket to the path; a leading `@` stands for an abstract name (unix(7)). */
export function openUnix(path: string): Socket {
  return new (loadAddon().UnixSocket)(path)
}

/** Gives back what malloc holds and nobody uses: with glibc; musl's holds little. */
export function trimMemory(): void {
  loadAddon().trim()
}

/** The addon cannot be loaded: the message says what to do. */
export class AddonError extends Error {
  override readonly name = 'AddonError'
}

/** This file is one folder below the root of the package, as source and in the bundle. */
const ROOT = fileURLToPath(new URL('..', import.meta.url))

const CANDIDATES = [
  'native/build/tweed.node',
  `prebuilds/linux-${process.arch}-glibc/tweed.node`,
  `prebuilds/linux-${process.arch}-musl/tweed.node`,
]

const require = createRequire(import.meta.url)

/**
 * The first candidate that loads: a build for the other C library does not. Not loaded before the first socket, so
 * that commands without one run without it. `require` keeps what it has loaded.
 */
function loadAddon(): Addon {
  const found = CANDIDATES.map((path) => ROOT + path).filter((path) => existsSync(path))
  if (found.length === 0) {
    throw new AddonError(`the native addon is not built: run \`npm run build\` in ${ROOT}`)
  }
  let cause: unknown
  for (const path of found) {
    try {
      return require(path) as Addon
    } catch (error) {
      cause = error
    }
  }
  throw new AddonError(`the native addon does not load: run \`npm run build\` in ${ROOT}: ${String(cause)}`, {
    cause,
  })
}
