/** `tweed docker-opts`: what flannel's `mk-docker-opts.sh` does, with its flags. */

import { mkdir, writeFile } from 'node:fs/promises'
import { dirname } from 'node:path'
import { parseEnv } from 'node:util'
import { parsePrefix } from '../address/prefix.ts'
import { DockerOptionsError, formatDockerOptions } from '../config/docker-options.ts'
import { readText } from '../config/subnet-file.ts'
import { hasGatewayRoute } from '../kernel/host.ts'
import { createProgram, runProgram } from './program.ts'

interface Options {
  readonly f: string
  readonly d: string
  readonly i?: true
  readonly c?: true
  readonly m?: true
  readonly k: string
}

export async function runDockerOpts(argv: readonly string[]): Promise<void> {
  const program = createProgram(
    'tweed docker-opts',
    "dockerd's options for our subnet, as a file for systemd",
  )
    .option('-f <file>', 'subnet.env to read', '/run/flannel/subnet.env')
    .option('-d <file>', 'file to write', '/run/docker_opts.env')
    .option('-i', 'each option in a variable of its own')
    .option('-c', 'all options in one variable')
    .option('-m', 'without --ip-masq')
    .option('-k <name>', 'the one variable', 'DOCKER_OPTS')
    .action(write)
  await runProgram(program, argv)
}

async function write({ f, d, i, c, m, k }: Options): Promise<void> {
  const subnetFile = parseEnv((await readText(f)) ?? '')
  await checkRoutes(subnetFile['FLANNEL_SUBNET'])
  const both = i === c
  const text = formatDockerOptions({
    subnetFile,
    individual: both || i === true,
    combined: both || c === true ? k : undefined,
    withoutMasquerade: m === true,
    existing: process.env[k] ?? '',
  })
  await mkdir(dirname(d), { recursive: true })
  await writeFile(d, text)
}

/** A subnet that is reached through a gateway is another host's: dockerd must not take it. */
async function checkRoutes(subnet: string | undefined): Promise<void> {
  if (subnet === undefined) return
  const prefix = parsePrefix(subnet)
  if (!(await hasGatewayRoute(prefix))) return
  throw new DockerOptionsError(`Your routing table already contains the subnet: ${prefix}`)
}
