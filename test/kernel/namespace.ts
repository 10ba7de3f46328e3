/**
 * A throw-away host for kernel tests: a network namespace with an underlay interface, and what `ip` and `bridge` say of
 * it, which is the judge of what tweed did. Everything is made inside the namespace and goes with it.
 */

import { execFile } from 'node:child_process'
import { promisify } from 'node:util'
import { run as feed } from '../../src/lab/command.ts'

const run = promisify(execFile)

/** All but links that `picture` shows of `ip`, as `ip -batch` takes it. */
const OBJECTS = 'addr show\nroute show table all\nrule show\nnexthop show\nneigh show\n'

/** An object as `ip -j` prints it. */
export type Row = Readonly<Record<string, unknown>>

export class Host implements AsyncDisposable {
  readonly name: string

  private constructor(name: string) {
    this.name = name
  }

  /**
   * A namespace with the interface `eth0` at `ip`/24 and, where it is given, `ip6`/64. Its other end, `wire`, is in the
   * same namespace.
   */
  static async create(ip: string, ip6?: string): Promise<Host> {
    const host = new Host(`tweed-test-${process.pid}-${count.next().value}`)
    await run('ip', ['netns', 'add', host.name])
    await host.ip('link add eth0 type veth peer name wire')
    await host.ip(`addr add ${ip}/24 dev eth0`)
    if (ip6 !== undefined) await host.ip(`addr add ${ip6}/64 dev eth0 nodad`)
    for (const link of ['lo', 'eth0', 'wire']) await host.ip(`link set ${link} up`)
    return host
  }

  /** Two hosts whose `eth0`s are the ends of one wire, each with an address of each family. */
  static async createPair(
    first: readonly [string, string],
    second: readonly [string, string],
  ): Promise<[Host, Host]> {
    const [a, b] = [await Host.create(...first), await Host.create(...second)]
    await b.ip('link del eth0')
    await a.ip(`link set wire netns ${b.name} name eth0`)
    await b.ip(`addr add ${second[0]}/24 dev eth0`)
    await b.ip(`addr add ${second[1]}/64 dev eth0 nodad`)
    await b.ip('link set eth0 up')
    return [a, b]
  }

  get path(): string {
    return `/run/netns/${this.name}`
  }

  /** `ip` in this namespace, words separated by blanks. */
  async ip(words: string): Promise<string> {
    return (await run('ip', ['-n', this.name, ...words.split(' ')])).stdout
  }

  async bridge(words: string): Promise<string> {
    return (await run('bridge', ['-n', this.name, ...words.split(' ')])).stdout
  }

  async list(words: string): Promise<Row[]> {
    return parse(await this.ip(`-j -d ${words}`))
  }

  async fdb(link: string): Promise<Row[]> {
    return parse(await this.bridge(`-j fdb show dev ${link}`))
  }

  async index(link: string): Promise<number> {
    const [row] = await this.list(`link show ${link}`)
    return Number(row?.['ifindex'])
  }

  /**
   * Everything that could be changed here, one line an object: links, addresses, routes of all tables, rules, nexthops,
   * neighbours, FDB entries. Two equal pictures are the same kernel state.
   */
  async picture(): Promise<string[]> {
    const pictures = [
      this.ip('-o -d link show'),
      // One program for all: where the processor is translated, to start one takes longer than all that it does.
      feed('ip', ['-n', this.name, '-o', '-batch', '-'], OBJECTS),
      this.bridge('fdb show'),
    ]
    const lines = (await Promise.all(pictures)).flatMap((text) => text.split('\n'))
    return lines
      .map((line) => line.replaceAll(/\s+/g, ' ').trim())
      .filter((line) => line !== '' && !/f[ef][08]0::/.test(line))
      .toSorted()
  }

  /** A program in this namespace. */
  async exec(command: string, ...args: string[]): Promise<string> {
    return (await run('nsenter', [`--net=${this.path}`, command, ...args])).stdout
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await run('ip', ['netns', 'del', this.name])
  }
}

const count = (function* () {
  for (let i = 0; ; i++) yield i
})()

function parse(json: string): Row[] {
  return json.trim() === '' ? [] : (JSON.parse(json) as Row[])
}
