/**
 * A host of the overlay for tests of the packet filter, in namespaces that go with it. Both families:
 *
 * ```
 *   container 10.10.1.2 ──┐                 ┌── remote 10.10.2.2    another host's container
 *   fd10:0:0:1::2         ├── host (routes) ┤   fd10:0:0:2::2
 *                                           └── outside 192.0.2.2   no part of the network
 *                                               2001:db8::2
 * ```
 *
 * The host's address in each of the three subnets ends in 1. In each of the others a program answers datagrams with
 * the source address that it saw.
 */

import { type ChildProcess, execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import { promisify } from 'node:util'
import type { Family } from '../../src/address/ip.ts'

const run = promisify(execFile)

export const MEMBERS = {
  container: { inet: '10.10.1', inet6: 'fd10:0:0:1:' },
  remote: { inet: '10.10.2', inet6: 'fd10:0:0:2:' },
  outside: { inet: '192.0.2', inet6: '2001:db8:' },
} as const satisfies Record<string, Record<Family, string>>
export type Member = keyof typeof MEMBERS

/** A group that the member outside has joined. */
export const GROUPS = { inet: '239.1.1.1', inet6: 'ff15::1' } as const

/** What a datagram that nobody answers gives. */
export const NO_ANSWER = 'no answer'

export class Router implements AsyncDisposable {
  readonly #prefix = `twq-${process.pid}-${count.next().value}`
  readonly #servers: ChildProcess[] = []

  static async create(): Promise<Router> {
    const router = new Router()
    try {
      await router.#build()
      return router
    } catch (error) {
      await router[Symbol.asyncDispose]()
      throw error
    }
  }

  /** Path of the host's network namespace. */
  get netns(): string {
    return `/run/netns/${this.#prefix}-host`
  }

  /** A program on the host. Words are separated by blanks; `input` is its standard input. */
  async exec(words: string, input = ''): Promise<string> {
    return await this.#exec('host', words.split(' '), input)
  }

  /** The source address that `destination` sees in a datagram, which is sent from `source` if that is given. */
  async seen(from: Member | 'host', destination: string, source = ''): Promise<string> {
    const program = [process.execPath, '--eval', CLIENT, destination, source]
    return (await this.#exec(from, program)).trim()
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const server of this.#servers) {
      server.kill('SIGKILL')
      if (server.exitCode === null && server.signalCode === null) await once(server, 'exit')
    }
    for (const member of ['host', ...Object.keys(MEMBERS)]) {
      await run('ip', ['netns', 'del', `${this.#prefix}-${member}`]).catch(() => undefined)
    }
  }

  async #build(): Promise<void> {
    await this.#addNamespace('host')
    await this.exec('sysctl -q -w net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1')
    for (const [member, { inet, inet6 }] of Object.entries(MEMBERS)) {
      await this.#addNamespace(member)
      await this.exec(`ip link add ${member} type veth peer name eth0 netns ${this.#prefix}-${member}`)
      for (const [at, link, number] of [
        ['host', member, 1],
        [member, 'eth0', 2],
      ] as const) {
        const ip = async (words: string) => await this.#exec(at, `ip ${words}`.split(' '))
        await ip(`addr add ${inet}.${number}/24 dev ${link}`)
        await ip(`addr add ${inet6}:${number}/64 dev ${link} nodad`)
        await ip(`link set ${link} up`)
        await ip('link set lo up')
      }
      await this.#exec(member, `ip route add default via ${inet}.1`.split(' '))
      await this.#exec(member, `ip route add default via ${inet6}:1`.split(' '))
    }
    await Promise.all((Object.keys(MEMBERS) as Member[]).map((member) => this.#serve(member)))
  }

  async #serve(member: Member): Promise<void> {
    const words = this.#words(member, [process.execPath, '--eval', SERVER, member])
    const server = spawn('nsenter', words, { stdio: ['ignore', 'pipe', 'inherit'] })
    this.#servers.push(server)
    await once(server.stdout, 'data')
  }

  /** Its addresses are used at once, without asking who else has them. */
  async #addNamespace(member: string): Promise<void> {
    await run('ip', ['netns', 'add', `${this.#prefix}-${member}`])
    await this.#exec(member, ['sysctl', '-q', '-w', 'net.ipv6.conf.default.accept_dad=0'])
  }

  async #exec(member: string, words: readonly string[], input = ''): Promise<string> {
    const running = run('nsenter', this.#words(member, words))
    running.child.stdin?.on('error', () => undefined).end(input)
    return (await running).stdout
  }

  #words(member: string, words: readonly string[]): string[] {
    return [`--net=/run/netns/${this.#prefix}-${member}`, ...words]
  }
}

const PORT = 4242

/** Its argument is the member's name. Says `ready` when it answers. */
const SERVER = `
  const { createSocket } = require('node:dgram')
  const groups = process.argv[1] === 'outside' ? ${JSON.stringify(GROUPS)} : {}
  let open = 0
  for (const [type, group, link] of [['udp4', groups.inet], ['udp6', groups.inet6, '::%eth0']]) {
    const socket = createSocket({ type, ipv6Only: type === 'udp6' })
    socket.on('message', (_, { address, port }) => socket.send(address, port, address))
    socket.bind(${PORT}, () => {
      if (group !== undefined) socket.addMembership(group, link)
      if (++open === 2) console.log('ready')
    })
  }`

/** Its arguments are the destination and the source. A source is the host's, and sends multicast to the outside. */
const CLIENT = `
  const { createSocket } = require('node:dgram')
  const [, destination, source] = process.argv
  const socket = createSocket(destination.includes(':') ? 'udp6' : 'udp4')
  const end = (text) => { console.log(text); process.exit() }
  socket.on('message', (text) => end(String(text)))
  socket.on('error', (error) => end(error.code))
  socket.bind(0, source || undefined, () => {
    if (/^(239|ff)/.test(destination)) socket.setMulticastInterface(destination.includes(':') ? '::%outside' : '192.0.2.1')
    socket.send('?', ${PORT}, destination)
  })
  setTimeout(end, 700, '${NO_ANSWER}')`

const count = (function* () {
  for (let i = 0; ; i++) yield i
})()
