/** `tweed status`: what the agent of this host has leased, who its peers are, what is in sync, what is not and why. */

import { styleText } from 'node:util'
import { readStatus, statusSocketPath } from '../status/client.ts'
import type { PeerState, PeerStatus, Status } from '../status/status.ts'
import { createProgram, runProgram } from './program.ts'
import { formatFields, formatTable } from './table.ts'

const DEFAULT_SUBNET_FILE = '/run/flannel/subnet.env'

export async function runStatus(argv: readonly string[]): Promise<void> {
  const program = createProgram(
    'tweed status',
    'what the agent of this host does; exit code 0 when all is in sync',
  )
    .option(
      '--subnet-file <path>',
      'the one that the agent writes: it answers beside it',
      DEFAULT_SUBNET_FILE,
    )
    .option('--json', 'for machines')
    .action(status)
  await runProgram(program, argv)
}

interface StatusOptions {
  readonly subnetFile: string
  readonly json?: true
}

async function status({ subnetFile, json }: StatusOptions): Promise<void> {
  const answer = await readStatus(statusSocketPath(subnetFile))
  process.stdout.write(json === true ? `${JSON.stringify(answer, undefined, 2)}\n` : formatStatus(answer))
  process.exitCode = isInSync(answer) ? 0 : 1
}

/** An ignored lease is not meant for this host: nothing is wrong with it. */
export function isInSync({ ready, registry, problems, peers }: Status): boolean {
  return (
    ready &&
    registry.available &&
    problems.length === 0 &&
    peers.every(({ state }) => state === 'in sync' || state === 'ignored')
  )
}

export function formatStatus(status: Status): string {
  const { lease, registry, counters } = status
  const sections = [
    formatFields([
      [
        'host',
        `${both(status.publicIp, status.publicIpv6)} on ${status.externalInterface}, ${readiness(status)}`,
      ],
      [
        'lease',
        `${both(lease.subnet, lease.ipv6Subnet)}, ${lease.expires === null ? 'reserved' : `until ${lease.expires}`}`,
      ],
      ['network', `${both(status.network, status.ipv6Network)}, ${status.backend}, MTU ${status.mtu}`],
      ['link', links(status)],
      ['registry', registry.available ? registry.name : bad(`${registry.name}: ${registry.why}`)],
      ['agent', `tweed ${status.version}, up for ${formatDuration(status.uptime)}`],
      [
        'work',
        `${counters.turns} turns, ${counters.operations} operations (${counters.repaired} repairs), ` +
          `${counters.failures} failed, ${counters.missesAnswered} misses answered`,
      ],
    ]),
    status.peers.length === 0
      ? 'no peers'
      : formatTable(['PEER', 'PUBLIC IP', 'STATE', 'WHY'], status.peers.map(peerRow)),
    ...status.problems.map((problem) => bad(`not as desired: ${problem}`)),
  ]
  return `${sections.join('\n\n')}\n`
}

function readiness(status: Status): string {
  if (!status.ready) return bad('not ready')
  return isInSync(status) ? good('in sync') : bad('ready, not in sync')
}

function peerRow({ state, why, ...peer }: PeerStatus): string[] {
  return [both(peer.subnet, peer.ipv6Subnet), both(peer.publicIp, peer.publicIpv6), formatState(state), why]
}

/** What there is of the two families. */
function both(inet: string, inet6: string): string {
  return [inet, inet6].filter((text) => text !== '').join(' ')
}

/** A backend that needs none has no link, and some links have no MAC. */
function links({ link, mac, ipv6Link, ipv6Mac }: Status): string {
  const texts = [both(link, mac), ipv6Link === link ? '' : both(ipv6Link, ipv6Mac)]
  return texts.filter((text) => text !== '').join(', ') || '-'
}

function formatState(state: PeerState): string {
  switch (state) {
    case 'in sync':
      return good(state)
    case 'failed':
    case 'refused':
      return bad(state)
    case 'ignored':
      return state
    default:
      return state satisfies never
  }
}

function good(text: string): string {
  return styleText('green', text)
}

function bad(text: string): string {
  return styleText('red', text)
}

/** `2 d 3 h`, `3 h 4 min`, `4 min 5 s`, `5 s`: the two largest units. */
export function formatDuration(seconds: number): string {
  const units = [
    [86_400, 'd'],
    [3600, 'h'],
    [60, 'min'],
    [1, 's'],
  ] as const
  let rest = Math.floor(seconds)
  const parts: string[] = []
  for (const [size, unit] of units) {
    const count = Math.floor(rest / size)
    rest -= count * size
    if (count > 0 || parts.length > 0 || unit === 's') parts.push(`${count} ${unit}`)
  }
  return parts.slice(0, 2).join(' ')
}
