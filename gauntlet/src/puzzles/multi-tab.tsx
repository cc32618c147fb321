import { cx } from "../skin";
import { Column } from "../kit";
import type { Control, Props, View } from "./contract";

interface Sheets extends View {
  links: (Control & { address: string })[];
}

// Without an opener the new page cannot reach this one, nor can this one reach into it.
export default function MultiTab({ view }: Props<Sheets>) {
  return (
    <Column>
      {view.links.map((link) => (
        <a key={link.part} className={cx("link")} href={link.address} target="_blank" rel="noopener noreferrer" data-part={link.part}>
          {link.label}
        </a>
      ))}
    </Column>
  );
}
