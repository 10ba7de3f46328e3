/** What dockerd needs to use our subnet, in the form of flannel's `mk-docker-opts.sh`: lines for a systemd EnvironmentFile. */

export interface DockerOptionsRequest {
  /** The variables of subnet.env. */
  readonly subnetFile: Readonly<Record<string, string | undefined>>
  /** `DOCKER_OPT_BIP`, `DOCKER_OPT_IPMASQ`, `DOCKER_OPT_MTU`, one a line. */
  readonly individual: boolean
  /** The name of the one variable that holds them all; undefined: none. */
  readonly combined: string | undefined
  /** Without --ip-masq. */
  readonly withoutMasquerade: boolean
  /** What the combined variable holds already: it stays in front. */
  readonly existing: string
}

/** subnet.env says something that it cannot say. */
export class DockerOptionsError extends Error {
  override readonly name = 'DockerOptionsError'
}

/** @throws {DockerOptionsError} */
export function formatDockerOptions(request: DockerOptionsRequest): string {
  const options = dockerOptions(request)
  const lines = request.individual ? options.map(([name, option]) => `DOCKER_OPT_${name}="${option}"`) : []
  if (request.combined !== undefined) {
    const all = options.map(([, option]) => ` ${option}`).join('')
    lines.push(`${request.combined}="${request.existing}${all}"`)
  }
  return lines.map((line) => `${line}\n`).join('')
}

/** Docker masquerades exactly when flannel does not. */
function dockerOptions({ subnetFile, withoutMasquerade }: DockerOptionsRequest): [string, string][] {
  const { FLANNEL_SUBNET: subnet, FLANNEL_IPMASQ: masquerade, FLANNEL_MTU: mtu } = subnetFile
  const options: [string, string][] = []
  if (subnet) options.push(['BIP', `--bip=${subnet}`])
  if (masquerade && !withoutMasquerade) {
    if (masquerade !== 'true' && masquerade !== 'false') {
      throw new DockerOptionsError(`Invalid value of FLANNEL_IPMASQ: ${masquerade}`)
    }
    options.push(['IPMASQ', `--ip-masq=${masquerade === 'false'}`])
  }
  if (mtu) options.push(['MTU', `--mtu=${mtu}`])
  return options
}
